"""The CLIP-score filter: the worst fitting pairs go, by budget or by two Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defenses import clip_score
from poisonbench.defenses.clip_score import ClipScore, lower_end
from poisonbench.lab import Lab


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab whose scoring model needs no training."""
    monkeypatch.setattr(clip_score, "scoring_model", lambda lab, epochs: lab.fresh("defense"))
    return tiny_lab(tiny_data(), ClipScore.card)


def cosines(lab: Lab) -> np.ndarray:
    towers = lab.fresh("defense").eval()
    image = towers.image(lab.pairs.images.fetch(np.arange(len(lab.pairs)))).embedding
    text = towers.text(lab.tokenizer([options[0] for options in lab.pairs.captions])).embedding
    return (image * text).sum(dim=1).detach().double().numpy()


def two_gaussians(
    sizes: tuple[int, int], means: tuple[float, float], widths: tuple[float, float]
) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(m, w, n) for n, m, w in zip(sizes, means, widths, strict=True)])


def test_the_pairs_that_fit_worst_are_the_most_suspicious_and_go_first(lab: Lab) -> None:
    curation = ClipScore({"remove": 0.25}).curate(lab.pairs, lab)
    np.testing.assert_allclose(curation.scores, -cosines(lab), atol=1e-6)
    worst = np.argsort(cosines(lab))[: len(lab.pairs) // 4]
    assert set(np.flatnonzero(~curation.keep)) == set(worst)


def test_the_scoring_model_is_trained_as_long_as_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tiny_lab(tiny_data(), ClipScore.card)
    heard: list[str] = []
    monkeypatch.setattr(lab.progress, "phase", lambda name, *rest: heard.append(name))
    ClipScore({"epochs": 2}).curate(lab.pairs, lab)
    assert [name for name in heard if "epoch" in name] == [
        "the defence's own model, epoch 1 of 2",
        "the defence's own model, epoch 2 of 2",
    ]


def test_two_gaussians_are_cut_where_the_lower_one_ends() -> None:
    cosine = two_gaussians((100, 900), (0.0, 0.6), (0.05, 0.05))
    assert 0.1 < lower_end(cosine, 0.5) < 0.45
    assert lower_end(cosine, 0.999) <= lower_end(cosine, 0.001)


def test_below_its_mean_the_lower_gaussian_is_trusted_even_where_the_wider_one_wins() -> None:
    """A narrow lower and a wide upper component: the worst pairs of all are nearer to the upper one's tail."""
    cosine = np.append(two_gaussians((400, 600), (0.2, 0.6), (0.01, 0.2)), -0.9)
    assert lower_end(cosine, 0.5) > 0.2 > cosine.min()


def test_the_gaussian_rule_removes_everything_up_to_the_cut(lab: Lab) -> None:
    curation = ClipScore({"rule": "gmm"}).curate(lab.pairs, lab)
    np.testing.assert_array_equal(curation.keep, cosines(lab) > lower_end(-curation.scores, 0.5))
    assert curation.keep.any()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pairs_that_all_fit_alike_are_all_kept() -> None:
    assert lower_end(np.full(50, 0.3), 0.5) == -np.inf
