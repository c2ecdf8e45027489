"""CLIP as two towers with global and token features, over open_clip.

Token features live in the joint space: for the stock global embedding e of an image or text, ``Features.embedding`` is e
normalised, and ``Features.tokens`` are the unit vectors of the places that e was pooled from.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from poisonbench.errors import UserError, did_you_mean
from poisonbench.models import register
from poisonbench.tokens import Tokenizer

MAX_SCALE = 100.0
"""CLIP clamps its exponentiated logit scale here."""


KNOWN = "use a CLIP with a ResNet (RN50), ViT (ViT-B-32) or convolutional timm tower (convnext_base)"


@dataclass(frozen=True)
class Features:
    """What a tower gives for a batch of b inputs.

    Attributes:
        embedding: (b, d) unit vectors.
        tokens: (b, m, d) unit vectors in the same space.
        mask: (b, m) bool, which tokens are real.
    """

    embedding: Tensor
    tokens: Tensor
    mask: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Features:
        """The features of some rows, an index (k,) on the same device, bool (b,) or a slice."""
        return Features(self.embedding[rows], self.tokens[rows], self.mask[rows])


class Towers(nn.Module):
    """An image and a text tower with one logit scale.

    Attributes:
        model: the open_clip model.
        tokenizer: texts to ids for the text tower.
        side: pixels per image side that the image tower takes.
        bf16: whether the towers run under bf16 autocast.
    """

    model: Any
    _mean: Tensor
    _std: Tensor

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, *, bf16: bool) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.bf16 = bf16
        side = self.model.visual.image_size
        self.side = int(side if isinstance(side, int) else side[0])
        mean, std = self.model.visual.image_mean, self.model.visual.image_std
        self.register_buffer("_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.model.logit_scale.device  # type: ignore[no-any-return]

    @property
    def scale(self) -> Tensor:
        """The exponentiated logit scale, clamped to 100 as in CLIP."""
        return self.model.logit_scale.exp().clamp(max=MAX_SCALE)  # type: ignore[no-any-return]

    def image(self, images: Tensor) -> Features:
        """Features of images: (b, 3, side, side), uint8 or float in [0, 1], on any device."""
        pixels = images.to(self.device, non_blocking=True)
        pixels = pixels.float().div(255) if pixels.dtype == torch.uint8 else pixels
        pixels = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with self._kernels():
            pooled, tokens = image_tokens(self.model.visual, pixels)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Features(F.normalize(pooled.float(), dim=-1), F.normalize(tokens.float(), dim=-1), mask)

    def text(self, ids: Tensor) -> Features:
        """Features of token ids: (b, context) int64; tokens are the positions after the start up to the end token."""
        ids = ids.to(self.device, non_blocking=True)
        with self._kernels():
            pooled, tokens = text_tokens(self.model.text, ids)
        last = ids.argmax(dim=-1, keepdim=True)
        place = torch.arange(1, ids.shape[1], device=ids.device)
        return Features(
            F.normalize(pooled.float(), dim=-1), F.normalize(tokens[:, 1:].float(), dim=-1), place <= last
        )

    def encode_image(self, images: Tensor) -> Tensor:
        """Global image embeddings (b, d); the name that clip-benchmark calls."""
        return self.image(images).embedding

    def encode_text(self, ids: Tensor) -> Tensor:
        """Global text embeddings (b, d); the name that clip-benchmark calls."""
        return self.text(ids).embedding

    def _kernels(self) -> ExitStack:
        """Autocast, and on a CPU plain attention: the backward pass of the fused one takes up to 15 times as long in bf16."""
        kernels = ExitStack()
        kernels.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16))
        if self.bf16 and self.device.type == "cpu":
            kernels.enter_context(sdpa_kernel(SDPBackend.MATH))
        return kernels


def build_towers(model: str, tokenizer: Tokenizer, *, seed: int, device: str, bf16: bool) -> Towers:
    """A randomly initialised open_clip model as towers.

    Args:
        model: the name of an open_clip configuration (``RN50``, ``ViT-B-32``, ``poisonbench-s`` ...).
        tokenizer: gives the size of the text table and the context length.
        seed: draws the initial weights; the global torch generator is left as it was.
        device: "cpu" or "cuda".
        bf16: whether to run under bf16 autocast.

    Raises:
        UserError: if open_clip has no configuration of that name.
    """
    import open_clip

    config = model_config(model)
    text = {**config["text_cfg"], "vocab_size": tokenizer.size, "context_length": tokenizer.context}
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        built = open_clip.create_model(model, force_custom_text=True, text_cfg=text, pretrained_text=False)
    built = built.to(memory_format=torch.channels_last)
    return Towers(built, tokenizer, bf16=bf16).to(device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's warning that no pretrained weights were loaded: that is what we asked for."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def image_side(model: str) -> int:
    """Pixels per image side of an open_clip model.

    Raises:
        UserError: if open_clip has no configuration of that name.
    """
    return int(model_config(model)["vision_cfg"].get("image_size", 224))


def model_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model, ours included.

    Raises:
        UserError: if open_clip has no configuration of that name.
    """
    import open_clip

    register()
    config: dict[str, Any] | None = open_clip.get_model_config(model)
    if config is None:
        known = did_you_mean(model, open_clip.list_models())
        raise UserError(f"field 'model.name': open_clip has no model '{model}'; {known}")
    return config


def image_tokens(visual: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled embedding (b, d) and the local features (b, m, d), both in the joint space and not normalised.

    Raises:
        UserError: for an image tower whose local features we do not know how to reach.
    """
    kind = type(visual).__name__
    if kind == "TimmModel":
        return timm_tokens(visual, pixels)
    if kind == "VisionTransformer":
        pooled, local = visual._pool(visual.transformer(visual._embeds(pixels)))
        return (pooled, local) if visual.proj is None else (pooled @ visual.proj, local @ visual.proj)
    if kind == "ModifiedResNet":
        x = visual.stem(pixels)
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(x))))
        every = attention_pool_tokens(visual.attnpool, x)
        return every[:, 0], every[:, 1:]
    raise UserError(f"field 'model.name': image towers of type {kind} give no token features; {KNOWN}")


def timm_tokens(visual: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled and local features of a timm trunk: its head's own places, or the projection applied to every place.

    Raises:
        UserError: for a trunk that gives no feature map.
    """
    grid = visual.trunk.forward_features(pixels)
    if hasattr(visual.trunk.head, "tokens"):
        local = visual.trunk.head.tokens(grid)
        return local.mean(dim=1), local
    if grid.ndim != 4 or grid.shape[1] != visual.trunk.num_features:
        raise UserError(
            f"field 'model.name': the trunk {type(visual.trunk).__name__} gives no map of places (b, channels, h, w); {KNOWN}"
        )
    pooled = visual.head(visual.trunk.forward_head(grid))
    places = visual.trunk.get_classifier()(grid.flatten(2).transpose(1, 2))  # some trunks project themselves
    return pooled, visual.head(places)


def attention_pool_tokens(pool: Any, grid: Tensor) -> Tensor:
    """open_clip's attention pool with every position as a query: (b, 1 + h*w, d); index 0 is the stock output."""
    x = grid.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0) + pool.positional_embedding[:, None, :].to(x.dtype)
    out, _ = F.multi_head_attention_forward(
        query=x, key=x, value=x, embed_dim_to_check=x.shape[-1], num_heads=pool.num_heads,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
        in_proj_weight=None, in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0, out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias, use_separate_proj_weight=True, training=pool.training, need_weights=False,
    )  # fmt: skip
    return out.transpose(0, 1)


def text_tokens(text: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled embedding (b, d) and every position's feature (b, context, d), in the joint space, not normalised.

    Raises:
        UserError: for a text tower that does not pool at the end token.
    """
    if getattr(text, "pool_type", "") != "argmax" or getattr(text, "cls_emb", None) is not None:
        raise UserError(f"field 'model.name': its text tower does not pool at the end token; {KNOWN}")
    x, attention_mask = text._embeds(ids)
    x = text.ln_final(text.transformer(x, attn_mask=attention_mask))
    x = text.text_projection(x) if isinstance(text.text_projection, nn.Linear) else x @ text.text_projection
    return x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)], x
