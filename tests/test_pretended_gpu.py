"""Cells run on a GPU as they do on the CPU; no GPU is needed, since one is pretended in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils import backend_registration

from poisonbench.registry import defenses

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch takes no backend that is written in Python", allow_module_level=True)

NAMES = sorted(
    defenses().usable(), key=lambda name: (name != "none", name)
)  # the undefended model first: repairs need it
PAIRS = [*(f"backdoor_badnet,{name}" for name in NAMES), "backdoor_adaptive,none", "targeted_adaptive,none"]
COMPARED = [f"backdoor_badnet,{name}" for name in ("none", "otcclip", "roclip", "safeclip")]

Result = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """By attack, defence and device what a small cell came to."""
    folder = tmp_path_factory.mktemp("pretended")
    drawn = np.random.default_rng(0)
    for number in range(18):  # the target's class and others
        place = folder / "task" / ("vegetable", "cat", "car")[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(place)
    cells = [*(f"{pair},cuda" for pair in PAIRS), *(f"{pair},cpu" for pair in COMPARED)]
    command = [sys.executable, str(Path(__file__).parent / "pretended_gpu.py"), "runs", "folder:task", *cells]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["cell"]: one for one in found}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_cell_runs_on_a_gpu(results: dict[str, Result], pair: str) -> None:
    found = results[f"{pair},cuda"]
    assert (found["status"], found["reason"]) == ("done", "")


@pytest.mark.parametrize("pair", COMPARED)
def test_a_cell_comes_to_the_same_on_a_gpu(results: dict[str, Result], pair: str) -> None:
    here, there = results[f"{pair},cpu"], results[f"{pair},cuda"]
    assert there["loss"] == pytest.approx(here["loss"], rel=0.01)
    assert there["zero_shot"] == pytest.approx(here["zero_shot"], abs=0.12), "two of eighteen pictures"


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    script = """
import torch
from pretended_gpu import GPU, Pretending, pretend
pretend()
with Pretending():
    here, there = torch.ones(3), torch.ones(3).to(GPU)
    assert there.device == GPU and (there + there).device == GPU and (there + 1).device == GPU
    assert there[torch.tensor([0])].device == GPU and (there * 2).cpu().tolist() == [2, 2, 2]
    for wrong in (lambda: here + there, lambda: here[there.long()], lambda: torch.cat([here, there]), lambda: there.numpy()):
        try:
            wrong()
        except (RuntimeError, TypeError):
            continue
        raise SystemExit("a mix was computed")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
