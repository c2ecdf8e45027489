import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from user_data import drawing, write_images

from poisonbench.errors import UserError
from poisonbench.progress import Progress
from poisonbench.sources.evaluation_set import EvaluationSet
from poisonbench.sources.evaluations import open_evaluations
from poisonbench.sources.pictures import squared

SIDE = 8


def judged(*names: str) -> EvaluationSet:
    return open_evaluations(names, SIDE, Progress())


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_images(
        tmp_path / "pets", [f"{name}/{name}-{i}.png" for name in ("house_cat", "dog") for i in range(5)]
    )
    return tmp_path / "pets"


def test_a_folder_per_class_becomes_a_task(pets: Path) -> None:
    (pets / "dog" / "dog-3.png").write_bytes(b"broken")
    (pets / "notes.txt").write_text("not a class")
    (pets / "empty").mkdir()
    found = judged(f"folder:{pets}")
    (task,) = found.tasks
    assert (task.name, task.classes) == ("pets", ("dog", "house cat"))
    assert task.kinds == {"zero_shot", "probe"}
    assert task.templates == ("a photo of a {c}", "a picture of a {c}", "{c}")
    assert task.naming("house cat") == ("house cat",)
    assert [task.classes[label] for label in task.labels] == ["dog"] * 4 + ["house cat"] * 5
    assert list(task.concepts)[3:5] == ["dog/dog-4", "house_cat/house_cat-0"]
    assert np.array_equal(task.images.fetch(np.array([4]))[0], squared(drawing(0), SIDE))
    assert [line.split(":")[0] for line in found.skipped] == ["dog/dog-3.png"]
    assert found.targets is None


def test_pictures_of_a_class_may_lie_behind_links(pets: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "disk" / "more", ["hen-7.png", "hen-8.png"])
    (pets / "hen").mkdir()
    (pets / "hen" / "more").symlink_to(tmp_path / "disk" / "more")
    (task,) = judged(f"folder:{pets}").tasks
    assert [task.classes[label] for label in task.labels].count("hen") == 2


def test_a_large_folder_spares_half_of_its_concepts_as_targets(tmp_path: Path) -> None:
    names = [f"{name}/{name}{i}.png" for name in ("cat", "dog") for i in range(20)]
    write_images(tmp_path / "pets", [*names, "owl/cat1.png"])
    found = judged(f"folder:{tmp_path / 'pets'}")
    (task,) = found.tasks
    assert found.targets is not None
    assert not set(task.concepts) & set(found.targets.concepts)
    assert len(task.labels) + len(found.targets.images) == 41
    assert 18 <= len(found.targets.images) <= 22
    assert task.classes == ("cat", "dog", "owl")
    assert set(found.targets.kinds) <= set(task.classes)


def test_numbers_as_names_make_no_twins_and_equal_files_do(tmp_path: Path) -> None:
    write_images(tmp_path / "pets", [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)])
    (tmp_path / "pets" / "dog" / "copy.png").write_bytes((tmp_path / "pets" / "cat" / "1.png").read_bytes())
    (task,) = judged(f"folder:{tmp_path / 'pets'}").tasks
    assert list(task.concepts) == ["cat/0", "cat/1", "cat/2", "dog/0", "dog/1", "dog/2", "cat/1"]


def test_with_embedded_tasks_a_folder_keeps_all_its_pictures(tmp_path: Path) -> None:
    write_images(tmp_path / "pets", [f"{name}/{name}{i}.png" for name in ("cat", "dog") for i in range(20)])
    found = judged(f"folder:{tmp_path / 'pets'}", "clipart")
    assert found.tasks[0].name == "pets"
    assert len(found.tasks[0].labels) == 40
    assert found.targets is not None
    assert not any(concept.startswith("dog/") for concept in found.targets.concepts)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "--eval is empty"),
        (("cifar10",), r"unknown evaluation 'cifar10'; give clipart, folder:PATH or clip-benchmark:NAME"),
        (("folder:/no/such",), "folder:/no/such does not exist"),
        (("clipart", "clipart"), "two tasks the name"),
    ],
)
def test_what_cannot_be_judged_on_is_one_clear_line(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        judged(*names)


def test_one_class_is_none(tmp_path: Path) -> None:
    write_images(tmp_path / "pets", ["dog/1.png", "dog/2.png"])
    with pytest.raises(UserError, match="has no two classes"):
        judged(f"folder:{tmp_path / 'pets'}")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> type:
    """The only data set of a small clip-benchmark; a test may change its fields."""

    class Tiny:
        classes, templates, labels = ["dog", "cat"], ["a photo of a {c}."], [1, 0, 1]

        def __init__(self, transform) -> None:
            self.transform = transform

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, row: int):
            return self.transform(drawing(row)), self.labels[row]

    def build_dataset(dataset_name: str, root: str, transform, split: str):
        print("Downloading")  # noqa: T201
        if dataset_name != "tiny":
            raise ValueError(f"Unsupported dataset: {dataset_name}.")
        return Tiny(transform)

    module = ModuleType("clip_benchmark.datasets.builder")
    monkeypatch.setattr(module, "build_dataset", build_dataset, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Tiny


def test_clip_benchmark_by_name(
    tiny: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = judged("clip-benchmark:tiny")
    (task,) = found.tasks
    assert (task.name, task.classes, task.templates) == (
        "clip-benchmark:tiny",
        ("dog", "cat"),
        ("a photo of a {c}.",),
    )
    assert task.labels.tolist() == [1, 0, 1]
    pixels = task.images.fetch(np.array([2, 0]))
    assert np.array_equal(pixels, np.stack([squared(drawing(2), SIDE), squared(drawing(0), SIDE)]))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("poisonbench.sources.pictures.IN_MEMORY", 0)
    lazy = judged("clip-benchmark:tiny")
    assert lazy.fingerprint == found.fingerprint
    assert np.array_equal(lazy.tasks[0].images.fetch(np.array([2, 0])), pixels)


def test_what_clip_benchmark_cannot_give_is_one_clear_line(tiny: type, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"clip-benchmark:huge cannot be had \(Unsupported dataset: huge\.\)"):
        judged("clip-benchmark:huge")
    monkeypatch.setattr(tiny, "labels", [["a caption"], ["another"]])
    with pytest.raises(UserError, match="one class each"):
        judged("clip-benchmark:tiny")
    monkeypatch.setitem(sys.modules, "clip_benchmark.datasets.builder", None)
    with pytest.raises(UserError, match="needs one more package"):
        judged("clip-benchmark:tiny")


def test_splits_are_no_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "pets", [f"{split}/cat/{i}.png" for split in ("train", "test") for i in range(2)])
    with pytest.raises(UserError, match="holds test and train, which are no classes"):
        judged(f"folder:{tmp_path / 'pets'}")


def test_a_class_is_found_however_its_accents_are_written(tmp_path: Path) -> None:
    write_images(tmp_path / "places", ["cafe\u0301/1.png", "bar/2.png"])
    [task] = judged(f"folder:{tmp_path / 'places'}").tasks
    assert task.classes[task.index("cafe\u0301")] == task.classes[task.index("caf\u00e9")] == "caf\u00e9"


def test_a_name_that_is_no_text_is_still_a_class(tmp_path: Path) -> None:
    write_images(tmp_path / "pets", ["cat/1.png"])
    odd = tmp_path / "pets" / os.fsdecode(b"d\xffg")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes only text as names")
    shutil.copy(tmp_path / "pets" / "cat" / "1.png", odd / "2.png")
    assert judged(f"folder:{tmp_path / 'pets'}").tasks[0].classes == ("cat", "d\ufffdg")
