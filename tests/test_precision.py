"""Towers are computed in what the tier asks for where the hardware has it, and the record says in what."""

from pathlib import Path

import pytest
import torch

import poisonbench
from poisonbench.precision import precision_on
from poisonbench.records import Record

SMALL = {"recipe.epochs": 1, "data.limit": 256}


def processor(monkeypatch: pytest.MonkeyPatch, *, bf16: bool) -> None:
    """Make this processor one with, or without, instructions for bf16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16, raising=False)


def cell(folder: Path, precision: str) -> Record:
    """The record of a short undefended cell that asks for ``precision``."""
    settings = {**SMALL, "recipe.precision": precision}
    return poisonbench.run("backdoor_badnet", tier="smoke", settings=settings, out=folder, device="cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of the cell in fp32."""
    return cell(tmp_path_factory.mktemp("plain"), "fp32")


def test_bf16_is_for_processors_that_multiply_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        processor(monkeypatch, bf16=has)
        assert precision_on("cpu", "bf16") == ("bf16" if has else "fp32")
        assert precision_on("cpu", "fp32") == "fp32"


def test_a_torch_that_cannot_tell_is_taken_to_emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert precision_on(torch.device("cpu"), "bf16") == "fp32"


def test_bf16_is_for_gpus_that_do_not_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert precision_on("cuda", "bf16") == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert precision_on("cuda", "bf16") == "bf16"


def test_a_processor_without_bf16_gives_the_numbers_of_fp32_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Record
) -> None:
    processor(monkeypatch, bf16=False)
    asked = cell(tmp_path, "bf16")
    assert asked.provenance.precision == plain.provenance.precision == "fp32"
    assert (asked.asr, asked.zero_shot, asked.history) == (plain.asr, plain.zero_shot, plain.history)


def test_a_processor_with_bf16_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Record
) -> None:
    processor(monkeypatch, bf16=True)
    rounded = cell(tmp_path, "bf16")
    assert (rounded.provenance.precision, plain.provenance.precision) == ("bf16", "fp32")
    assert rounded.history != plain.history
