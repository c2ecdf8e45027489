"""SAFECLIP (arXiv 2310.05862); see docs/defenses/safeclip.md."""

from poisonbench.defenses.safeclip.defense import SAFECLIP

__all__ = ["SAFECLIP"]
