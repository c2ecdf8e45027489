"""The benchmark of what tells poisons apart: a measure that sees them says so, and one that cannot does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from separability import judged, main, recurrence, shares

from poisonbench.towers import Features

ROWS, PLACES, WIDTH = 512, 16, 64


def cell(bad: torch.Tensor) -> tuple[Features, Features]:
    """Clean images fit their captions everywhere; bad ones in one place alone, which outweighs the rest of the image."""
    rng = torch.Generator().manual_seed(0)
    caption = F.normalize(torch.randn(ROWS, WIDTH, generator=rng), dim=-1)
    places = caption[:, None] + 0.2 * torch.randn(ROWS, PLACES, WIDTH, generator=rng)
    places[bad] = torch.randn(int(bad.sum()), PLACES, WIDTH, generator=rng) / WIDTH**0.5
    places[bad, 3] = 20 * caption[bad]
    image = Features(
        F.normalize(places.mean(dim=1), dim=-1), F.normalize(places, dim=-1), torch.ones(ROWS, PLACES).bool()
    )
    return image, Features(caption, caption[:, None], torch.ones(ROWS, 1).bool())


def test_a_loud_place_passes_the_global_test_and_fails_over_the_worst_half() -> None:
    bad = torch.arange(ROWS) % 16 == 0
    found = judged(*cell(bad))
    passed = {name: shares(own > torch.quantile(decoy, 0.9), bad) for name, (own, decoy) in found.items()}
    assert passed["global cosine"] == (1.0, 1.0)
    for measure in ("cosine over the worst half", "transport over the worst half"):
        clean, poisons = passed[measure]
        assert clean == 1.0 and poisons < 0.4, measure


def test_a_place_that_bad_rows_share_recurs() -> None:
    bad = torch.arange(ROWS) % 8 == 0
    image, text = cell(bad)
    image.tokens[bad, 3] = F.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1)
    scores, sound = recurrence(image, judged(image, text))
    assert not sound[bad].all() and sound[~bad].all()
    assert (scores[bad] > torch.quantile(scores[~bad], 0.95)).float().mean() > 0.9


def test_shares_count_either_side() -> None:
    passes, bad = torch.tensor([True, False, True, True]), torch.tensor([False, False, True, False])
    assert shares(passes, bad) == (pytest.approx(2 / 3), 1.0)


def test_what_is_no_cell_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path / "model.safetensors")])
    assert result.exit_code == 2 and "model.safetensors" in result.output
