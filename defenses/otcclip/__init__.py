"""OTCCLIP (arXiv 2509.18717), the reference defence; see README.md."""

from poisonbench.defenses.otcclip.defense import OTCCLIP

__all__ = ["OTCCLIP"]
