"""The benchmark of OT's very claim counts what it says it counts, on pictures and captions that cannot leak."""

from __future__ import annotations

import json
import math
from pathlib import Path

import caption_sample
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from caption_choice import Rule, choose, kept, main, measured, paired
from caption_sample import Sample, drawn
from click.testing import CliRunner
from safetensors.torch import save_file

from poisonbench.evaluation.statistics import wilson
from poisonbench.pairs import ArrayImages, Pairs
from poisonbench.resolve import Request, resolve
from poisonbench.settings import validated
from poisonbench.sources.opening import open_data
from poisonbench.sources.vocabulary import tokenizer_for
from poisonbench.tier import DataSpec
from poisonbench.towers import Features, build_towers, image_side

BASIS = torch.eye(8)


def features(embedding: torch.Tensor, tokens: torch.Tensor) -> Features:
    return Features(
        F.normalize(embedding, dim=-1),
        F.normalize(tokens, dim=-1),
        torch.ones(tokens.shape[:2], dtype=torch.bool),
    )


@pytest.fixture
def parts_that_tell() -> Sample:
    """Two images of two parts each; globals prefer the wrong caption a little, parts fit the right one alone."""
    tokens = torch.stack([BASIS[[0, 1]], BASIS[[2, 3]]])
    images = features(torch.stack([BASIS[4], BASIS[5]]), tokens)
    captions = features(torch.stack([BASIS[5] + 0.9 * BASIS[4], BASIS[4] + 0.9 * BASIS[5]]), tokens)
    rest = features(
        torch.randn(30, 8, generator=torch.manual_seed(0)) * torch.tensor([1.0] * 4 + [0.0] * 4),
        BASIS[[6, 7]].expand(30, 2, 8),
    )
    pool = Features(
        *(
            torch.cat([getattr(captions, name), getattr(rest, name)])
            for name in ("embedding", "tokens", "mask")
        )
    )
    return Sample(images, pool, images.embedding, {"class": torch.eye(2, 32, dtype=torch.bool)})


def test_every_rule_chooses_by_its_own_measure(parts_that_tell: Sample) -> None:
    def chosen(rule: Rule) -> list[int]:
        return choose(parts_that_tell, rule).tolist()

    assert chosen(Rule("cosine", 32)) == [1, 0]
    for rule in (
        Rule("OT", 32),
        Rule("relaxed", 32),
        Rule("OT", 32, eps=0.02),
        Rule("mixture", 32, beta=0.25),
    ):
        assert chosen(rule) == [0, 1], rule
    assert chosen(Rule("mixture", 32, beta=0.999)) == [1, 0]


def test_shares_are_compared_with_the_cosine_and_with_chance(parts_that_tell: Sample) -> None:
    cosine, transport = measured(parts_that_tell, [Rule("cosine", 32), Rule("OT", 32)])
    assert (cosine["class"]["hits"], transport["class"]["hits"], transport["n"]) == (0, 2, 2)
    assert (transport["class"]["low"], transport["class"]["high"]) == (wilson(2, 2).low, wilson(2, 2).high)
    assert (transport["class"]["above_cosine"], transport["class"]["half_width"]) == (1.0, 0.0)
    assert transport["class"]["chance"] == pytest.approx(1 / 32)


def test_quarters_hold_the_images_whose_own_captions_fit_best_first() -> None:
    """Four images of which the n-th finds n of three captions nearer than its own; the two that fit best are given right ones."""
    own = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.5, 0.75**0.5], [0.0, 1.0]])
    embedding = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    captions = torch.tensor([[0.9, 0.19**0.5], [0.7, 0.51**0.5], [0.3, 0.91**0.5]])
    images = features(embedding, embedding[:, None])
    pool = features(captions, captions[:, None])
    right = torch.zeros(4, 3, dtype=torch.bool)
    right[:2, 0] = True
    shuffled = torch.tensor([2, 0, 3, 1])
    [row] = measured(Sample(images, pool, own[shuffled], {"class": right[shuffled]}), [Rule("cosine", 3)])
    assert row["class"]["quarters"] == [1, 1, 0, 0]


def test_a_smaller_pool_is_the_beginning_of_the_larger(parts_that_tell: Sample) -> None:
    [_, row] = measured(parts_that_tell, [Rule("cosine", 16), Rule("OT", 16)])
    assert row["pool"] == 16 and row["class"]["chance"] == pytest.approx(1 / 16)


def test_the_paired_interval_is_that_of_a_mean_of_differences() -> None:
    hits, reference = torch.tensor([1, 1, 1, 0]).bool(), torch.tensor([1, 0, 0, 1]).bool()
    mean, half = paired(hits, reference)  # differences 0, 1, 1, -1
    assert mean == pytest.approx(0.25)
    assert half == pytest.approx(1.96 * math.sqrt((3 - 4 * 0.25**2) / 3) / 2)


def test_which_text_tokens_are_compared() -> None:
    mask = torch.tensor([[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    assert kept(mask, "all").equal(mask) and kept(mask, "centred").equal(mask)
    assert kept(mask, "without the end token").sum(dim=1).tolist() == [1, 2, 5]
    assert not kept(mask, "without the end token")[2, 5]
    assert kept(mask, "last 4")[2].tolist() == [False, False, True, True, True, True]
    assert kept(mask, "last 4")[:2].equal(mask[:2])


def test_captions_of_the_same_picture_stay_out_of_the_pool() -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    pairs = Pairs(ArrayImages(torch.cat([pixels, pixels[:1]])), [("a",)] * 5, "five rows, four pictures")
    others = caption_sample._other_pictures(pairs, np.array([0, 1, 3, 4]), np.array([0]))
    assert others.tolist() == [1, 3]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with the record and the manifest of a cell."""
    folder = tmp_path_factory.mktemp("runs") / "backdoor_badnet--none--smoke--s0--abc"
    folder.mkdir()
    [cell] = resolve(Request(("backdoor_badnet",), tier="smoke", device="cpu"))
    data = open_data(cell.tier.data, image_side(cell.tier.model.name))
    towers = build_towers(
        cell.tier.model.name, tokenizer_for(data, cell.tier.model), seed=0, device="cpu", bf16=False
    )
    save_file(
        {name: value.contiguous() for name, value in towers.model.state_dict().items()},
        folder / "model.safetensors",
    )
    (folder / "record.json").write_text(json.dumps({"config": cell.model_dump(mode="json")}))
    edits = [{"row": row, "captions": ["a vegetable"], "target": "vegetable"} for row in range(1000)]
    (folder / "manifest.json").write_text(
        json.dumps({"edits": edits, "target_words": {"vegetable": ["vegetable"]}})
    )
    return folder / "model.safetensors"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_sample_has_the_asked_size_and_names_right_captions(checkpoint: Path, split: str) -> None:
    sample = drawn(checkpoint, split, 24, 400, "cpu")  # type: ignore[arg-type]
    assert sample.images.embedding.shape[0] == 24 and sample.captions.tokens.shape[0] == 400
    right = sample.right["class"]
    assert right.shape == (24, 400) and 0 < right.float().mean() < 0.5
    again = drawn(checkpoint, split, 24, 400, "cpu")  # type: ignore[arg-type]
    assert again.right["class"].equal(right)


def test_poisoned_rows_are_no_part_of_the_sample(checkpoint: Path) -> None:
    result = CliRunner().invoke(
        main, [str(checkpoint), "--images", "8", "--pool", "1001", "--split", "train"]
    )
    assert result.exit_code == 2
    assert "--pool 1001: only" in result.output.splitlines()[-1]


def test_the_command_prints_rows_for_every_rule(checkpoint: Path) -> None:
    arguments = [str(checkpoint), "--images", "8", "--pool", "64"]
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert {row["images"] for row in found} == {"train", "validation"}
    assert {row["choice"] for row in found} >= {"cosine", "relaxed", "OT", "0.5 cosine + 0.5 OT"}
    assert {row["eps"] for row in found} == {0.02, 0.1, 0.5}
    table = CliRunner().invoke(main, [*arguments, "--split", "train"]).output.splitlines()
    assert len({row.count(" | ") for row in table}) == 1, "a head for every column"
    assert len(table) == 2 + len(found) // 2 and "right class (95%)" in table[0]


def test_kinds_are_those_of_the_rows(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint.parent / "record.json").read_text())["config"]
    data = open_data(validated(DataSpec, config["tier"]["data"], "smoke"), 32)
    config["tier"]["data"]["limit"] = 0
    (tmp_path / "record.json").write_text(json.dumps({"config": config}))
    (tmp_path / "model.safetensors").touch()
    kinds = caption_sample._kinds(tmp_path / "model.safetensors")
    assert len(kinds["validation"]) == len(data.validation)
    named = [
        kind in " ".join(texts)
        for kind, texts in zip(kinds["validation"], data.validation.captions, strict=True)
    ]
    assert np.mean(named) > 0.9


def test_kinds_are_asked_for_where_there_are_none(checkpoint: Path) -> None:
    """The smoke tier leaves rows out, so that nothing says what kind a row is."""
    result = CliRunner().invoke(main, [str(checkpoint), "--images", "8", "--pool", "64", "--all"])
    assert result.exit_code == 2
    assert "know no kinds; leave it out" in result.output.splitlines()[-1]


def test_a_checkpoint_that_is_none_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path / "model.safetensors")])
    assert result.exit_code == 2
    assert "give the model.safetensors of a finished cell" in result.output.splitlines()[-1]
