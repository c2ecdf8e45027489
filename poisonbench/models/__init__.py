"""Small models of our own, registered with timm and open_clip, so that open_clip builds every model of the suite."""

from __future__ import annotations

from functools import cache
from pathlib import Path

CONFIGS = Path(__file__).parent


@cache
def register() -> None:
    """Make the configurations of this folder known to open_clip, and the towers they name to timm."""
    import open_clip

    from poisonbench.models import image_towers  # noqa: F401 (registers with timm when imported)

    open_clip.add_model_config(CONFIGS)
