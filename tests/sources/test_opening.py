import socket
from pathlib import Path

import datasets
import numpy as np
import pytest
from user_data import drawing, encoded, pictures, said, write_csv, write_images, write_jsonl

from poisonbench.errors import UserError
from poisonbench.progress import Progress
from poisonbench.sources import Data
from poisonbench.sources.embedded import open_clipart
from poisonbench.sources.opening import open_data
from poisonbench.sources.pictures import squared
from poisonbench.tier import DataSpec

SIDE = 8
PARTS = ("train", "clean", "validation")


@pytest.fixture(autouse=True)
def plain_tasks(tmp_path: Path) -> str:
    """Two classes, so that no test waits for the embedded tasks unless it asks for them."""
    write_images(tmp_path / "eval", [f"{name}/{name}{i}.png" for name in ("cat", "dog") for i in range(2)])
    return f"folder:{tmp_path / 'eval'}"


@pytest.fixture
def opened(plain_tasks: str):
    def open_it(source: object, progress: Progress | None = None, **fields: object) -> Data:
        return open_data(DataSpec(source=str(source), evaluation=(plain_tasks,), **fields), SIDE, progress)

    return open_it


def everything_said(data: Data) -> list[str]:
    return [text for part in PARTS for text in said(getattr(data, part))]


def test_a_folder_with_csv_gives_every_pair_with_its_own_image(folder: Path, opened) -> None:
    data = opened(folder)
    assert sorted(everything_said(data)) == sorted(f"thing {i}" for i in range(60))
    for part in PARTS:
        pairs = getattr(data, part)
        expected = [squared(drawing(int(text.split()[1])), SIDE) for text in said(pairs)]
        assert np.array_equal(pictures(pairs), np.array(expected).reshape(-1, 3, SIDE, SIDE))
    assert data.skipped == ()
    assert data.validation_task is None
    assert data.synonyms


def test_jsonl_with_lists_gives_several_captions(tmp_path: Path, opened) -> None:
    box = tmp_path / "box"
    write_images(box, ["a.png", "deep/b.png"])
    write_jsonl(
        box,
        [
            {"file_name": "a.png", "captions": ["a  cat", "a pet", "a cat", " "]},
            {"file_name": "deep/b.png", "captions": ["a dog"]},
        ],
    )
    data = opened(box, clean=0, validation=0)
    assert list(data.train.captions) == [("a cat", "a pet"), ("a dog",)]


@pytest.mark.parametrize("column", ["caption", "text", "captions", "title"])
def test_the_usual_caption_columns_are_known(tmp_path: Path, opened, column: str) -> None:
    box = tmp_path / "box"
    write_images(box, ["a.png"])
    write_csv(box, [("a.png", 7, "a fox")], ("file_name", "id", column))
    assert said(opened(box, clean=0, validation=0).train) == ["a fox"]


def test_words_like_test_in_file_names_do_not_hide_rows(tmp_path: Path, opened) -> None:
    box = tmp_path / "my [test] data"
    write_images(box, ["img_test_1.png", "train/valid.png"])
    write_csv(box, [("img_test_1.png", "a fox"), ("train/valid.png", "a hen")])
    assert sorted(everything_said(opened(box, clean=0, validation=0))) == ["a fox", "a hen"]


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        (("train", "test"), {"train"}),
        (("training", "testing"), {"training"}),
        (("train2014", "train_2", "val2014"), {"train2014", "train_2"}),
        (("web", "test"), {"web"}),
        (("test",), {"test"}),
        (("web", ".backup"), {"web"}),
    ],
)
def test_of_a_folder_divided_into_splits_only_train_is_read(
    tmp_path: Path, opened, parts: tuple[str, ...], read: set[str]
) -> None:
    for part in parts:
        write_images(tmp_path / "box" / part, ["a.png"])
        write_csv(tmp_path / "box" / part, [("a.png", f"a {part} fox")])
    data = opened(tmp_path / "box", clean=0, validation=0)
    assert set(everything_said(data)) == {f"a {part} fox" for part in read}


def test_folders_that_are_links_are_read_once(tmp_path: Path, opened) -> None:
    elsewhere, box = tmp_path / "disk", tmp_path / "box"
    for part in ("a", "b"):
        write_images(elsewhere / part, ["x.png"])
        write_csv(elsewhere / part, [("x.png", f"a fox of {part}")])
    box.mkdir()
    (box / "shared").symlink_to(elsewhere)
    (elsewhere / "a" / "back").symlink_to(box)
    data = opened(box, clean=0, validation=0)
    assert sorted(everything_said(data)) == ["a fox of a", "a fox of b"]


def test_unusable_rows_are_named_and_the_rest_is_used(folder: Path, opened) -> None:
    (folder / "03.png").write_bytes(b"no image at all")
    (folder / "04.png").write_bytes(encoded(4)[:60])
    (folder / "05.png").unlink()
    captions = {6: "", 7: "   "}
    write_csv(folder, [(f"{i:02}.png", captions.get(i, f"thing {i}")) for i in range(60)])
    data = opened(folder)
    assert [line.split(":")[0] for line in data.skipped] == ["03.png", "04.png", "05.png", "06.png", "07.png"]
    assert "not an image" in data.skipped[0]
    assert "caption is empty" in data.skipped[4]
    assert len(everything_said(data)) == 55


def test_a_long_list_of_unusable_rows_ends_with_its_count(
    folder: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poisonbench.sources.rows.NAMED", 3)
    write_csv(folder, [(f"{i:02}.png", "" if i < 20 else f"thing {i}") for i in range(60)])
    skipped = opened(folder).skipped
    assert len(skipped) == 4
    assert skipped[-1] == "... and 17 more"


def test_nothing_left_is_an_error(tmp_path: Path, opened) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "a.png").write_bytes(b"broken")
    write_csv(tmp_path / "box", [("a.png", "a fox")])
    with pytest.raises(UserError, match=r"none of 1 rows is left.*a\.png"):
        opened(tmp_path / "box")


def test_a_folder_without_captions_is_told_how_they_look(tmp_path: Path, opened) -> None:
    write_images(tmp_path / "bare", ["a.png"])
    with pytest.raises(UserError, match=r"bare has no captions; .*metadata\.csv.*file_name,caption"):
        opened(tmp_path / "bare")
    write_csv(tmp_path / "bare", [("a.png", 3)], ("file_name", "weight"))
    with pytest.raises(UserError, match=r"bare has no caption column.*weight"):
        opened(tmp_path / "bare")


def test_metadata_that_cannot_be_read_is_named(tmp_path: Path, opened) -> None:
    write_images(tmp_path / "box", ["a.png"])
    (tmp_path / "box" / "metadata.jsonl").write_text('{"file_name": "a.png", "caption"\n')
    with pytest.raises(UserError, match=r"box cannot be read .*metadata\.jsonl") as caught:
        opened(tmp_path / "box")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/folder", "/no/such/folder does not exist"),
        ("none", "give it with --data"),
        ("hf:nobody/nothing", r"hf:nobody/nothing cannot be read .*network"),
    ],
)
def test_data_that_is_not_there_is_one_clear_line(opened, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        opened(source)
    assert "\n" not in str(caught.value)


def test_a_name_on_the_hub_is_read_through_datasets(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [{"bytes": encoded(i), "path": None} for i in range(3)] + [None]
    table = datasets.Dataset.from_dict(
        {"jpg": cells, "json": [{"caption": f"thing {i}"} for i in range(4)]},
        features=datasets.Features({"jpg": datasets.Image(), "json": {"caption": datasets.Value("string")}}),
    )
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: {("someone/pets", "train"): table}[name, split]
    )
    data = opened("hf:someone/pets", clean=0, validation=0)
    assert said(data.train) == ["thing 0", "thing 1", "thing 2"]
    assert data.skipped == ("row 3: the image cannot be read (the row has none)",)


@pytest.mark.parametrize("prefix", ["", "hf:"])
@pytest.mark.parametrize("split", [False, True])
def test_a_saved_data_set_is_read(tmp_path: Path, opened, prefix: str, split: bool) -> None:
    rows = {"image": [drawing(i) for i in range(3)], "caption": [f"thing {i}" for i in range(3)]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    (datasets.DatasetDict(train=table) if split else table).save_to_disk(tmp_path / "saved")
    data = opened(f"{prefix}{tmp_path / 'saved'}", clean=0, validation=0)
    assert said(data.train) == ["thing 0", "thing 1", "thing 2"]
    assert np.array_equal(pictures(data.train), np.stack([squared(drawing(i), SIDE) for i in range(3)]))


def test_splits_are_repeatable_and_keep_equal_captions_together(folder: Path, opened) -> None:
    spellings = ("Thing {}", "thing  {}", "THING {} ")
    write_csv(folder, [(f"{i:02}.png", spellings[i % 3].format(i // 3)) for i in range(60)])
    first, again = (opened(folder, clean=0.3, validation=0.3) for _ in range(2))
    sets = [{text.lower() for text in said(getattr(first, part))} for part in PARTS]
    assert all(sets)
    assert sum(map(len, sets)) == len(set.union(*sets)) == 20
    assert everything_said(first) == everything_said(again)
    assert first.fingerprint == again.fingerprint
    assert len(everything_said(first)) == 60


def test_a_picture_with_several_captions_is_in_one_part(folder: Path, opened) -> None:
    """The layout of COCO and Flickr: one row per caption, five rows per picture."""
    rows = [(f"{i % 12:02}.png", f"thing {i % 12}, words {i}") for i in range(60)]
    write_csv(folder, rows)
    data = opened(folder, clean=0.3, validation=0.3)
    numbers = [{text.split(",")[0] for text in said(getattr(data, part))} for part in PARTS]
    assert all(numbers)
    assert sum(map(len, numbers)) == 12
    assert sorted(everything_said(data)) == sorted(caption for _, caption in rows)


def test_pictures_and_captions_that_are_all_connected_are_trained_on(folder: Path, opened) -> None:
    write_csv(folder, [(f"{i:02}.png", f"word {j}") for i in range(10) for j in (i, i + 1)])
    data = opened(folder, clean=0.3, validation=0.3)
    assert [len(getattr(data, part)) for part in PARTS] == [20, 0, 0]


def test_a_picture_under_two_names_is_one_picture(folder: Path, opened) -> None:
    for i in range(10):
        (folder / f"copy {i}.png").write_bytes((folder / f"{i:02}.png").read_bytes())
    write_csv(
        folder,
        [(name, f"{name} {i}") for i in range(10) for name in (f"{i:02}.png", f"copy {i}.png")],
    )
    data = opened(folder, clean=0.3, validation=0.3)
    for i in range(10):
        assert sum(any(text.endswith(f" {i}") for text in said(getattr(data, part))) for part in PARTS) == 1


def test_limit_takes_a_growing_share_of_the_training_rows_only(folder: Path, opened) -> None:
    (folder / "03.png").write_bytes(b"broken")
    some, more, full = (opened(folder, limit=limit) for limit in (10, 30, 0))
    assert (len(some.train), len(more.train)) == (10, 30)
    assert set(said(some.train)) < set(said(more.train)) < set(said(full.train))
    assert said(some.clean) == said(full.clean)
    assert some.fingerprint != full.fingerprint


def test_the_fingerprint_follows_captions_images_and_size(folder: Path, opened, plain_tasks: str) -> None:
    before = opened(folder).fingerprint
    (folder / "07.png").write_bytes(encoded(77))
    repainted = opened(folder).fingerprint
    write_csv(folder, [(f"{i:02}.png", f"thing {i}" if i else "object 0") for i in range(60)])
    renamed = opened(folder).fingerprint
    larger = open_data(DataSpec(source=str(folder), evaluation=(plain_tasks,)), 2 * SIDE).fingerprint
    assert len({before, repainted, renamed, larger}) == 4


def test_large_data_are_decoded_lazily_to_the_same_pixels(
    folder: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "03.png").write_bytes(b"broken")
    held = opened(folder)
    monkeypatch.setattr("poisonbench.sources.pictures.IN_MEMORY", 0)
    lazy = opened(folder)
    assert lazy.fingerprint == held.fingerprint
    assert lazy.skipped == held.skipped
    assert np.array_equal(pictures(lazy.train), pictures(held.train))
    assert np.array_equal(pictures(lazy.clean), pictures(held.clean))
    (folder / said(lazy.train)[0].replace("thing ", "").zfill(2)).with_suffix(".png").unlink()
    with pytest.raises(UserError, match="can no longer be read"):
        pictures(lazy.train)


def test_a_users_folder_is_left_as_it_was_and_nobody_is_told(
    folder: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    opened(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_progress_counts_the_images_it_checks(folder: Path, opened) -> None:
    class Told(Progress):
        def __init__(self) -> None:
            self.phases: dict[str, int] = {}
            self.done = 0

        def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
            self.phases[name] = total

        def advance(self, done: int) -> None:
            self.done = done

    told = Told()
    data = opened(folder, told)
    assert told.phases["checking images, train"] == len(data.train)
    assert told.done == len(data.validation)


def test_own_pairs_meet_the_embedded_tasks_and_targets(folder: Path) -> None:
    data, embedded = open_data(DataSpec(source=str(folder)), SIDE), open_clipart(SIDE, 0)
    assert [task.name for task in data.tasks] == [task.name for task in embedded.tasks]
    assert data.headline.images.side == SIDE
    assert data.targets is embedded.targets
    assert len(data.train) < 60


def test_embedded_pairs_meet_own_tasks(plain_tasks: str) -> None:
    data, embedded = open_data(DataSpec(evaluation=(plain_tasks, "clipart")), SIDE), open_clipart(SIDE, 0)
    assert data.headline.classes == ("cat", "dog")
    assert data.tasks[1:] == embedded.tasks
    assert data.train is embedded.train
    assert data.validation_task is embedded.validation_task
    assert data.fingerprint != embedded.fingerprint


def test_clipart_alone_is_the_embedded_data() -> None:
    assert open_data(DataSpec(), SIDE) is open_clipart(SIDE, 0)
