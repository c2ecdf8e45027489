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

TYPES = {
    **dict.fromkeys(("visual", "text", "a", "b", "visual_away", "text_away", "ceiling", "out"), "*fp32"),
    **dict.fromkeys(("image", "caption"), "*i64"),
    **dict.fromkeys(("images", "captions", "m", "n", "iterations", "stages"), "i32"),
    **dict.fromkeys(("eps", "tolerance"), "fp32"),
}
SIZES = {
    "embedded tier": (16, 16, 128),
    "RN50": (49, 32, 1024),
    "ViT-B/16": (196, 32, 768),
    "longest": (1024, 16, 1024),
}


@pytest.fixture(autouse=True)
def _compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, shape: dict[str, Any], capability: int, **changed: str) -> Any:
    """A kernel as a launch on such a GPU would compile it, all pointers aligned as those of PyTorch are."""
    types = TYPES | changed
    options = {name: shape[name] for name in ("num_warps", "num_stages")}
    constants = {name: value for name, value in shape.items() if name not in options}
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    aligned = {
        (at,): [["tt.divisibility", 16]] for at, kind in enumerate(signature.values()) if kind[0] == "*"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def both(size: str, capability: int) -> tuple[Any, Any]:
    """The bounds' kernel and the costs' for a size."""
    m, n, d = SIZES[size]
    bounds = compiled(bounds_kernel, bounds_shape(m, n, d), capability, visual="*bf16", text="*bf16")
    return bounds, compiled(costs_kernel, costs_shape(m, n, d, "tf32x3"), capability)


@pytest.mark.parametrize(
    ("size", "capability"), [("embedded tier", 90), ("RN50", 80), ("ViT-B/16", 89), ("longest", 89)]
)
def test_every_size_that_fits_compiles_and_finds_its_shared_memory(size: str, capability: int) -> None:
    m, n, _ = SIZES[size]
    assert fits(m, n)
    for built in both(size, capability):
        assert len(built.asm["cubin"]) > 1000
        assert built.metadata.shared <= SHARED[capability]


def test_both_kernels_multiply_on_hoppers_tensor_cores() -> None:
    for built in both("RN50", 90):
        assert "wgmma.mma_async" in built.asm["ptx"]


def test_older_gpus_get_the_costs_without_tensor_cores() -> None:
    built = compiled(costs_kernel, costs_shape(16, 16, 128, "ieee"), 75)
    assert "mma" not in built.asm["ptx"]
