from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from small_bench import Bench, make_probe

from poisonbench.errors import UserError
from poisonbench.evaluation import embeddings, evaluate, examination
from poisonbench.evaluation.measure import measure
from poisonbench.evaluation.outputs import Outputs
from poisonbench.evaluation.zero_shot import class_weights, logits
from poisonbench.pairs import ArrayImages, Pairs
from poisonbench.progress import Progress


class Heard(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.notes: list[str] = []

    def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
        self.current, self._before = name, 0
        self.totals[name] = self.totals.get(name, 0) + total

    def advance(self, done: int) -> None:
        assert done > self._before, "a running total never falls"
        self.done[self.current] = self.done.get(self.current, 0) + done - self._before
        self._before = done

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def outputs(bench: Bench) -> Outputs:
    return evaluate(bench.towers, bench.untrained, bench.data, bench.probe, progress=Progress())


def test_every_task_is_judged_in_the_ways_it_is_good_for(outputs: Outputs) -> None:
    assert outputs.tasks("zero_shot") == ["main", "only_zero", "validation_main"]
    assert outputs.tasks("probe") == outputs.tasks("probe_untrained") == ["main", "only_probe"]
    assert len(outputs.block("retrieval_image")) == len(outputs.block("retrieval_text")) == 20


def test_the_attack_is_scored_on_its_own_inputs_and_goals(bench: Bench, outputs: Outputs) -> None:
    attacked, controls = outputs.block("attack", "main"), outputs.block("control", "main")
    assert attacked.goal.tolist() == controls.goal.tolist() == [2] * 30
    assert attacked.label.tolist() == bench.probe.labels.tolist()
    found = measure(outputs).asr
    assert found is not None and found.value == found.base  # here the controls are the attacked images


def test_accuracies_are_those_of_the_zero_shot_logits(bench: Bench, outputs: Outputs) -> None:
    task = bench.data.headline
    scores = logits(bench.towers, task.images, class_weights(bench.towers, task))
    labels = torch.from_numpy(task.labels)
    found = measure(outputs).zero_shot["main"]
    assert found.top1 == pytest.approx((scores.argmax(dim=1) == labels).float().mean().item())
    assert found.top5 == pytest.approx(
        (scores.argmin(dim=1) != labels).float().mean().item()
    )  # of six classes


def test_the_same_networks_and_data_give_the_same_outputs(bench: Bench, outputs: Outputs) -> None:
    assert evaluate(bench.towers, bench.untrained, bench.data, bench.probe, progress=Progress()) == outputs


def test_networks_keep_their_mode_weights_and_statistics(bench: Bench) -> None:
    before = {name: value.clone() for name, value in bench.towers.state_dict().items()}
    bench.towers.train()
    try:
        evaluate(bench.towers, bench.untrained, bench.data, None, progress=Progress())
        assert bench.towers.training and not bench.untrained.training
    finally:
        bench.towers.eval()
    assert all(torch.equal(value, before[name]) for name, value in bench.towers.state_dict().items())


def test_progress_hears_of_every_image_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BATCH", 16)
    monkeypatch.setattr(examination, "logits", partial(logits, batch=16))
    heard = Heard()
    evaluate(bench.towers, bench.untrained, bench.data, bench.probe, progress=heard)
    assert heard.done == heard.totals
    assert heard.totals["evaluation: attacked inputs"] == 30


def test_without_attack_validation_pairs_or_concepts_the_rest_is_still_judged(bench: Bench) -> None:
    lonely = replace(
        bench.data.headline, concepts=[f"all of {label}" for label in bench.data.headline.labels]
    )
    none = Pairs(ArrayImages(torch.zeros(0, 3, 32, 32, dtype=torch.uint8)), [], "none")
    empty = replace(
        bench.data.headline, name="validation_main", images=none.images, labels=np.zeros(0, int), concepts=[]
    )
    heard = Heard()
    data = replace(bench.data, tasks=(lonely,), validation=none, validation_task=empty)
    found = measure(evaluate(bench.towers, bench.untrained, data, None, progress=heard))
    assert (found.asr, found.retrieval, found.linear_probe, list(found.zero_shot)) == (
        None,
        None,
        {},
        ["main"],
    )
    assert heard.notes == ["task 'main' has too few concepts for a linear probe; skipped"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "mian"}, "names task 'mian'; did you mean .*'main'"),
        (
            {"images": torch.zeros(0, 3, 32, 32, dtype=torch.uint8)},
            "at least one attacked image and one control",
        ),
        (
            {"controls": torch.zeros(0, 3, 32, 32, dtype=torch.uint8)},
            "at least one attacked image and one control",
        ),
        ({"goals": np.array([2])}, "one goal, label and concept for each of 30 images"),
        ({"goals": np.full(30, 6)}, "goal 6; task 'main' has classes 0 to 5"),
        ({"control_goals": np.full(30, -1)}, "goal -1; task 'main'"),
        ({"goals": np.full(30, 1)}, "6 images whose true class is the goal"),
    ],
)
def test_a_probe_that_would_give_wrong_numbers_is_refused(
    bench: Bench, change: dict[str, Any], message: str
) -> None:
    wrong = replace(bench.probe, **change)
    with pytest.raises(UserError, match=message):
        evaluate(bench.towers, bench.untrained, bench.data, wrong, progress=Progress())


def test_an_attack_may_name_any_task_of_the_data(bench: Bench) -> None:
    probe = make_probe(bench.data.tasks[1], 0)
    found = evaluate(bench.towers, bench.untrained, bench.data, probe, progress=Progress())
    assert found.tasks("attack") == found.tasks("control") == ["only_zero"]
