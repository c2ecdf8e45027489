"""BDetCLIP: contrastive prompting at inference; the description bank is the file beside this one."""

from poisonbench.defenses.bdetclip.defense import BDetCLIP

__all__ = ["BDetCLIP"]
