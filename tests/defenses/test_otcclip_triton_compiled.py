"""The fused kernels compile for GPUs that are not here, and what they need is there on every supported one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from poisonbench.defenses.otcclip.triton_kernels import bounds_kernel, costs_kernel
from poisonbench.defenses.otcclip.triton_shapes import bounds_shape, costs_shape, fits

SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that a block may have, by compute capability (CUDA's programming guide, technical specifications)."""

POINTERS = {"visual": "", "text": "", "a": "*fp32", "b": "*fp32", "out": "*fp32"}
BOUNDS = {
    **POINTERS, "visual": "*bf16", "text": "*bf16", "visual_away": "*fp32", "text_away": "*fp32",
    "images": "i32", "captions": "i32", "m": "i32", "n": "i32",
}  # fmt: skip
COSTS = {
    **POINTERS, "visual": "*fp32", "text": "*fp32", "image": "*i64", "caption": "*i64", "ceiling": "*fp32",
    "m": "i32", "n": "i32", "eps": "fp32", "tolerance": "fp32", "iterations": "i32", "stages": "i32",
}  # fmt: skip
SIZES = {
    "embedded tier": (16, 16, 128),
    "RN50": (49, 32, 1024),
    "ViT-B/16": (196, 32, 768),
    "longest": (1024, 16, 1024),
}


@pytest.fixture(autouse=True)
def _compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, types: dict[str, str], shape: dict[str, Any], capability: int) -> Any:
    """A kernel as a launch on such a GPU would compile it, all pointers aligned as those of PyTorch are."""
    options = {name: shape[name] for name in ("num_warps", "num_stages")}
    constants = {name: value for name, value in shape.items() if name not in options}
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    aligned = {
        (at,): [["tt.divisibility", 16]] for at, kind in enumerate(signature.values()) if kind[0] == "*"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize(
    ("size", "capability"), [("embedded tier", 90), ("RN50", 80), ("ViT-B/16", 89), ("longest", 89)]
)
def test_every_size_that_fits_compiles_and_finds_its_shared_memory(size: str, capability: int) -> None:
    m, n, d = SIZES[size]
    assert fits(m, n)
    for kernel, types, shape in (
        (bounds_kernel, BOUNDS, bounds_shape(m, n, d)),
        (costs_kernel, COSTS, costs_shape(m, n, d, "tf32x3")),
    ):
        built = compiled(kernel, types, shape, capability)
        assert len(built.asm["cubin"]) > 1000
        assert built.metadata.shared <= SHARED[capability]


def test_both_kernels_multiply_on_hoppers_tensor_cores() -> None:
    m, n, d = SIZES["RN50"]
    for kernel, types, shape in (
        (bounds_kernel, BOUNDS, bounds_shape(m, n, d)),
        (costs_kernel, COSTS, costs_shape(m, n, d, "tf32x3")),
    ):
        assert "wgmma.mma_async" in compiled(kernel, types, shape, 90).asm["ptx"]


def test_older_gpus_get_the_costs_without_tensor_cores() -> None:
    built = compiled(costs_kernel, COSTS, costs_shape(16, 16, 128, "ieee"), 75)
    assert "mma" not in built.asm["ptx"]
