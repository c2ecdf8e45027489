"""The matcher's benchmark runs, and its object holds the ratios that the project promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ot_matcher.py"


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--size", "tiny", "--repeats", "1", "--threads", "1", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_it_prints_one_object_with_the_promised_ratios() -> None:
    done = benchmark("--json")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["argmin_agreement"] == 1
    assert report["speedup_over_pot_batch"] > 0 and report["times_floor"] > 0
    assert 0 < report["share_solved"] < 1
    assert all(seconds > 0 for seconds in report["seconds"].values())


def test_real_tokens_need_a_checkpoint(tmp_path: Path) -> None:
    for arguments in ((), ("--checkpoint", str(tmp_path / "model.safetensors"))):
        done = benchmark("--tokens", "real", *arguments)
        assert done.returncode == 2
        assert "--checkpoint" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
