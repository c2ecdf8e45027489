"""The trigger library: what can be painted into an image, in sizes that are shares of its side.

An ``Operation`` is data (it goes into the poison manifest and the record); ``paint`` applies it. The same operation
gives the same picture at every time, on every machine, and however the images are batched.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag
from torch import Tensor

from poisonbench.triggers.blend import Blend
from poisonbench.triggers.overlays import Overlay, overlay
from poisonbench.triggers.patch import GRID, Patch, Pattern, patch_pixels
from poisonbench.triggers.region import EVALUATION_CROPS, Box, safe_span
from poisonbench.triggers.sinusoid import Sinusoid
from poisonbench.triggers.tone import Tone
from poisonbench.triggers.trigger import Trigger
from poisonbench.triggers.variation import Variation
from poisonbench.triggers.warp import Warp

__all__ = [
    "EVALUATION_CROPS",
    "GRID",
    "Blend",
    "Box",
    "Operation",
    "Overlay",
    "Patch",
    "Pattern",
    "Sinusoid",
    "Tone",
    "Trigger",
    "Variation",
    "Warp",
    "overlay",
    "paint",
    "patch_pixels",
    "safe_span",
]


def _kind(value: Any) -> str:
    """The kind of a written or a living operation; manifests older than the other kinds name none."""
    return str(value.get("kind", "patch") if isinstance(value, dict) else getattr(value, "kind", ""))


Operation = Annotated[
    Annotated[Patch, Tag("patch")]
    | Annotated[Blend, Tag("blend")]
    | Annotated[Sinusoid, Tag("sinusoid")]
    | Annotated[Warp, Tag("warp")]
    | Annotated[Tone, Tag("tone")]
    | Annotated[Variation, Tag("variation")],
    Discriminator(_kind),
]


def paint(images: Tensor, operation: Trigger) -> Tensor:
    """A copy of ``images`` (uint8, (3, side, side) or (n, 3, side, side)) with the operation applied to each."""
    return operation.paint(images)
