from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.errors import UserError
from poisonbench.evaluation.outputs import FILE, Outputs

rows = st.lists(st.tuples(st.integers(-1, 30), st.integers(0, 30), st.text(max_size=8)), max_size=20)


def filled(examples: list[tuple[int, int, str]]) -> Outputs:
    outputs = Outputs()
    label = [row[0] for row in examples]
    prediction = [row[1] for row in examples]
    concept = [row[2] for row in examples]
    index = np.arange(len(examples))
    top5 = np.array(prediction, dtype=int)[:, None]
    outputs.add("zero_shot", "a", index=index, label=label, prediction=prediction, top5=top5, concept=concept)
    outputs.add("retrieval_text", "validation", index=index, rank=index + 1)
    return outputs


@settings(max_examples=25, deadline=None)
@given(rows)
def test_what_is_saved_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, examples: list[tuple[int, int, str]]
) -> None:
    path = tmp_path_factory.mktemp("cell") / FILE
    outputs = filled(examples)
    outputs.save(path)
    loaded = Outputs.load(path)
    assert loaded == outputs
    assert loaded.block("zero_shot", "a").concept == tuple(row[2] for row in examples)


def test_absent_columns_are_minus_one_and_short_top5_is_padded() -> None:
    block = filled([(4, 7, "x")]).block("zero_shot")
    assert block.goal.tolist() == [-1] and block.rank.tolist() == [-1]
    assert block.top5.tolist() == [[7, -1, -1, -1, -1]]


def test_a_block_is_one_part_on_one_task_or_on_all() -> None:
    outputs = filled([(0, 0, "x"), (1, 0, "y")])
    outputs.add("zero_shot", "b", index=[9], label=[1], prediction=[1])
    assert outputs.tasks("zero_shot") == ["a", "b"] and outputs.tasks("attack") == []
    assert outputs.block("zero_shot", "b").index.tolist() == [9]
    assert (len(outputs.block("zero_shot")), len(outputs.block("attack")), len(outputs)) == (3, 0, 5)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        Outputs().add("attack", "a", index=[0, 1], prediction=[1])


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / FILE
    filled([(1, 1, "old")]).save(path)

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(UserError, match=f"cannot write .*{FILE}: No space left"):
        filled([(1, 1, "new")]).save(path)
    assert Outputs.load(path) == filled([(1, 1, "old")])
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Outputs().save(tmp_path / "nowhere" / FILE)


@pytest.mark.parametrize("content", [b"", b"not parquet at all", None])
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / FILE
    if content is not None:
        path.write_bytes(content)
    message = complaint(path)
    assert str(path) in message and "--force" in message and "\n" not in message


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    filled([(1, 1, "x")] * 50).save(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert str(path) in complaint(path)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    pq.write_table(pa.table({"caption": ["a cat"]}), path)
    assert "its columns are caption" in complaint(path)


def test_unknown_parts_and_missing_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    filled([(1, 1, "x")]).save(path)
    good = pq.read_table(path)
    for column, values in (("part", ["guess", "attack"]), ("label", [None, 1])):
        at = good.schema.get_field_index(column)
        bad = good.set_column(at, good.schema.field(at), pa.array(values, good.schema.field(at).type))
        pq.write_table(bad, path)
        assert f"bad values in {column}" in complaint(path)


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        Outputs.load(path)
    return str(caught.value)
