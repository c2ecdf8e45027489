"""No defence: plain CLIP on whatever pairs there are."""

from __future__ import annotations

from poisonbench.defense import Defense, DefenseCard


class NoDefense(Defense):
    """The tier's recipe and CLIP's loss; the twin that shows whether an attack works at all (Radford et al., 2021)."""

    card = DefenseCard(title="undefended", paper="arXiv:2103.00020", year=2021, track="none")
