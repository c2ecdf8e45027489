from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification as original
from small_bench import Bench

from poisonbench.evaluation.zero_shot import best_classes, class_weights, logits


def test_class_weights_are_those_of_clip_benchmark_class_by_class(bench: Bench) -> None:
    task = bench.data.headline
    expected = original.zero_shot_classifier(
        bench.towers, bench.towers.tokenizer, list(task.classes), list(task.templates), "cpu", amp=False
    )
    found = class_weights(bench.towers, task)
    assert found.shape == (64, len(task.classes))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_logits_do_not_depend_on_batches_or_on_how_images_are_held(bench: Bench) -> None:
    task = bench.data.headline
    weights = class_weights(bench.towers, task)
    whole = logits(bench.towers, task.images, weights)
    tensor = task.images.fetch(np.arange(len(task.images)))
    assert whole.shape == (36, 6) and whole.dtype == torch.float32
    torch.testing.assert_close(logits(bench.towers, tensor, weights, batch=7), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        whole, 100 * bench.towers.encode_image(tensor).detach() @ weights, rtol=1e-4, atol=1e-4
    )


def test_nothing_is_written_to_the_terminal(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    logits(bench.towers, bench.data.headline.images, class_weights(bench.towers, bench.data.headline))
    assert capfd.readouterr() == ("", "")


def test_the_best_classes_come_first_and_there_are_no_more_than_classes() -> None:
    assert best_classes(torch.tensor([[0.1, 0.9, 0.5]])).tolist() == [[1, 2, 0]]
    assert best_classes(torch.arange(8.0)[None]).tolist() == [[7, 6, 5, 4, 3]]


def test_a_model_that_diverged_is_not_given_a_score(bench: Bench) -> None:
    weights = torch.full((64, 6), torch.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        logits(bench.towers, bench.data.headline.images, weights)
