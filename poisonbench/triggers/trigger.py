"""What every trigger is: data that can be written to a manifest, and a way to paint it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from pydantic import SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from poisonbench.settings import Settings


class Trigger(Settings, ABC):
    """One operation on pictures, without randomness of its own.

    Attributes:
        kind: which operation it is, in the manifest's words.
    """

    kind: str

    @abstractmethod
    def paint(self, images: Tensor) -> Tensor:
        """A copy of ``images`` (uint8, (..., 3, side, side), any device) with the trigger in each."""

    @model_serializer(mode="wrap")
    def _always_with_kind(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Manifests leave out defaults, but without its kind an operation could not be read again."""
        return {"kind": self.kind, **dump(self)}


def to_bytes(values: Tensor) -> Tensor:
    """Values on the scale of 0 to 255 as uint8, rounded and clipped."""
    return values.round().clamp(0, 255).to(torch.uint8)
