"""The Triton backend gives the torch backend's numbers; checked in Triton's interpreter, so no GPU is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

SCRIPT = """
import json
import torch
import torch.nn.functional as F
from poisonbench.defenses.otcclip.bounds import relaxed
from poisonbench.defenses.otcclip.matcher import Transport, distances, match
from poisonbench.defenses.otcclip.solvers import solver_for
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.defenses.otcclip.triton_solver import proven

torch.set_num_threads(1)
rng = torch.Generator().manual_seed(0)

def sets(count, tokens, d):
    mask = torch.rand(count, tokens, generator=rng) < 0.7
    mask[:, tokens // 2] = True
    mass = torch.rand(count, tokens, generator=rng) + 0.05
    return TokenSets.of(F.normalize(torch.randn(count, tokens, d, generator=rng), dim=-1), mask, mass)

def difference(images, captions, eps):
    ours, theirs = (
        distances(images, captions, Transport(eps=eps, backend=backend)) for backend in ("triton", "torch")
    )
    return float((ours - theirs).abs().max())

report = {}
images, captions = sets(2, 7, 20), sets(5, 5, 20)
report["costs"] = {str(eps): difference(images, captions, eps) for eps in (0.03, 0.1, 1.0)}
report["tall"] = difference(sets(2, 3, 70), sets(3, 18, 70), 0.1)
report["large"] = difference(sets(2, 5, 70), sets(2, 300, 70), 0.1)
how = Transport(backend="triton")
fused = match(images, captions, 2, how=how)
plain = match(images, captions, 2, how=Transport(backend="torch"))
report["matches"] = torch.equal(fused.index, plain.index)
long = sets(3, 300, 20)
for name, (first, second) in {"wide": (images, captions), "high": (captions, images), "long": (images, long)}.items():
    second = second.at_rows(second.length.argsort(descending=True))
    found = solver_for(first, second, how).bounds()
    cost = distances(first, second, Transport(eps=0.005, backend="torch"))
    report[name] = [float((cost - found).min()), float((found - relaxed(first, second, torch.bfloat16, 1 << 20)).min())]
real = torch.ones(3, 8, dtype=torch.bool)
real[:, 5:] = False
clear = F.normalize(torch.randn(3, 8, 20, generator=rng), dim=-1)
dirty = TokenSets.of(clear.masked_fill(~real[..., None], float("nan")), real)
found, wanted = (match(side, captions, 2, how=how) for side in (dirty, TokenSets.of(clear, real)))
report["padding"] = torch.equal(found.index, wanted.index) and torch.equal(found.cost, wanted.cost)
report["proven"] = proven(torch.device("cpu"))
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    """What the interpreter computed, in a process of its own: Triton reads its mode when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_fused_costs_are_those_of_the_torch_backend(report: dict[str, dict[str, float]]) -> None:
    assert max(report["costs"].values()) < 1e-4
    assert report["tall"] < 1e-4  # type: ignore[operator]
    assert report["large"] < 1e-4  # type: ignore[operator]


def test_fused_matches_are_those_of_the_torch_backend(report: dict[str, object]) -> None:
    assert report["matches"] is True


def test_what_stands_in_the_padding_is_never_read(report: dict[str, object]) -> None:
    assert report["padding"] is True


@pytest.mark.parametrize("shape", ["wide", "high", "long"])
def test_fused_bounds_hold_and_are_as_tight(report: dict[str, list[float]], shape: str) -> None:
    room, over_unfused = report[shape]
    assert room >= 0
    # the fused products are not rounded to bf16 on their way out
    assert over_unfused > -1e-3


def test_auto_takes_the_kernels_where_they_have_shown_that_they_work(report: dict[str, object]) -> None:
    assert report["proven"] is True


def test_where_they_do_not_run_pytorch_solves_and_a_warning_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Outside the interpreter, a CPU stands for a GPU that the kernels cannot be compiled for."""
    from poisonbench.defenses.otcclip.triton_solver import proven

    assert not proven.__wrapped__(torch.device("cpu"))
    assert "PyTorch solves instead" in caplog.text
