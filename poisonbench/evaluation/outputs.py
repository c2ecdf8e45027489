"""Per-example outputs of one cell, stored once; every metric is computed from them.

One row per example, in one parquet file. Where a column does not apply, integers are -1, words are empty and the score is
null. Files from before there was a score column are read as if nothing had been scored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poisonbench.errors import UserError

Part = Literal[
    "zero_shot",
    "attack",
    "control",
    "probe",
    "probe_untrained",
    "retrieval_image",
    "retrieval_text",
    "curation",
    "query",
    "query_control",
]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

FILE = "predictions.parquet"
TOP = 5
ABSENT = -1
MEND = "run the cell again with --force"

NUMBERS = ("index", "label", "goal", "prediction", "rank")
SCORE = "score"
SCHEMA = pa.schema(
    [("part", pa.string()), ("task", pa.string())]
    + [(name, pa.int32()) for name in NUMBERS]
    + [("top5", pa.list_(pa.int32(), TOP)), ("concept", pa.string()), (SCORE, pa.float64())]
)


@dataclass(frozen=True)
class Block:
    """The outputs of one part, as parallel columns of n examples.

    Attributes:
        index: row in the task, the probe or the validation pairs.
        label: true class, -1 where unknown.
        goal: class that the attacker wants, -1 where there is none.
        prediction: predicted class.
        top5: (n, 5) the best classes, best first, -1 beyond the number of classes.
        rank: retrieval: 1-based rank of the best true partner.
        concept: what is drawn.
        score: how suspicious a defence found the example, larger is more; NaN where none judged it.
    """

    index: Ints
    label: Ints
    goal: Ints
    prediction: Ints
    rank: Ints
    top5: Ints
    concept: tuple[str, ...]
    score: Floats

    def __len__(self) -> int:
        return len(self.index)


class Outputs:
    """All outputs of a cell."""

    def __init__(self, table: pa.Table | None = None) -> None:
        """``table`` has the columns of ``SCHEMA``; without it there are no outputs yet."""
        self._table = SCHEMA.empty_table() if table is None else table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outputs) and bool(self._table.equals(other._table))

    def add(
        self,
        part: Part,
        task: str,
        *,
        index: npt.ArrayLike,
        label: npt.ArrayLike | None = None,
        goal: npt.ArrayLike | None = None,
        prediction: npt.ArrayLike | None = None,
        rank: npt.ArrayLike | None = None,
        top5: npt.ArrayLike | None = None,
        concept: Sequence[str] | None = None,
        score: npt.ArrayLike | None = None,
    ) -> None:
        """Append the examples of one part on one task; all columns are parallel to ``index`` (see ``Block``).

        ``top5`` is (n, k) with any k up to 5.

        Raises:
            ValueError: if the columns differ in length.
        """
        given = {"index": index, "label": label, "goal": goal, "prediction": prediction, "rank": rank}
        n = len(np.asarray(index))
        columns = {name: _integers(values, n) for name, values in given.items()}
        flat = pa.array(_padded(top5, n).ravel(), pa.int32())
        columns["top5"] = pa.FixedSizeListArray.from_arrays(flat, TOP)
        columns["concept"] = pa.array([""] * n if concept is None else list(concept), pa.string())
        columns[SCORE] = (
            pa.nulls(n, pa.float64()) if score is None else pa.array(np.asarray(score), pa.float64())
        )
        words = {"part": pa.array([part] * n, pa.string()), "task": pa.array([task] * n, pa.string())}
        new = pa.table({**words, **columns}).select(SCHEMA.names).cast(SCHEMA)
        self._table = pa.concat_tables([self._table, new])

    def tasks(self, part: Part) -> list[str]:
        """The tasks with outputs of ``part``, sorted."""
        return sorted(self._of(part)["task"].unique().to_pylist())

    def block(self, part: Part, task: str | None = None) -> Block:
        """The outputs of ``part``, on one task or on all."""
        table = self._of(part)
        if task is not None:
            table = table.filter(pc.field("task") == task)
        numbers = {name: table[name].to_numpy() for name in NUMBERS}
        top5 = table["top5"].combine_chunks().flatten().to_numpy().reshape(-1, TOP)
        concept = tuple(table["concept"].to_pylist())
        score = table[SCORE].to_numpy().astype(np.float64)
        return Block(**numbers, top5=top5, concept=concept, score=score)

    def judge(self, part: Part, task: str, scores: Floats) -> None:
        """Keep how suspicious a defence found every example of a part: ``scores[i]`` belongs to the example with index i."""
        column = self._table[SCORE].to_numpy().astype(np.float64)
        chosen = self._chosen(part, task).to_numpy(zero_copy_only=False)
        column[chosen] = scores[self._table["index"].to_numpy()[chosen]]
        place = SCHEMA.names.index(SCORE)
        scored = pa.array(column, pa.float64(), mask=np.isnan(column))
        self._table = self._table.set_column(place, SCHEMA.field(SCORE), scored)

    def abstain(self, part: Part, task: str, index: npt.ArrayLike) -> None:
        """Take back the predictions of some examples (a screening defence flagged them): they count as no class at all."""
        chosen = self._chosen(part, task)
        chosen = pc.and_(chosen, pc.is_in(self._table["index"], pa.array(np.asarray(index), pa.int32())))
        nothing = pa.array([[ABSENT] * TOP] * len(self), pa.list_(pa.int32(), TOP))
        replaced = {"prediction": pa.array([ABSENT] * len(self), pa.int32()), "top5": nothing}
        for name, value in replaced.items():
            kept = pc.if_else(chosen, value, self._table[name].combine_chunks())
            self._table = self._table.set_column(SCHEMA.names.index(name), SCHEMA.field(name), kept)

    def save(self, path: Path) -> None:
        """Write all outputs to ``path``; the file is there as a whole or not at all.

        Raises:
            UserError: if it cannot be written.
        """
        try:
            _write_whole(self._table, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None

    @classmethod
    def load(cls, path: Path) -> Outputs:
        """Read what ``save`` wrote.

        Raises:
            UserError: if the file is missing, damaged, or holds something else.
        """
        try:
            table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UserError(f"cannot read predictions {path}: {reason}; {MEND}") from None
        if table.schema.names == [name for name in SCHEMA.names if name != SCORE]:
            table = table.append_column(SCHEMA.field(SCORE), pa.nulls(table.num_rows, pa.float64()))
        problem = _problem(table)
        if problem:
            raise UserError(f"{path} is not a file of predictions: {problem}; {MEND}")
        return cls(table.cast(SCHEMA))

    def _chosen(self, part: Part, task: str) -> Any:
        return pc.and_(pc.equal(self._table["part"], part), pc.equal(self._table["task"], task))

    def _of(self, part: Part) -> pa.Table:
        return self._table.filter(pc.field("part") == part)


def _integers(values: npt.ArrayLike | None, n: int) -> Any:
    return pa.array(np.full(n, ABSENT) if values is None else np.asarray(values), pa.int32())


def _padded(values: npt.ArrayLike | None, n: int) -> npt.NDArray[np.int32]:
    wide = np.full((n, TOP), ABSENT, dtype=np.int32)
    if values is not None:
        given = np.asarray(values)
        wide[:, : given.shape[1]] = given
    return wide


def _problem(table: pa.Table) -> str:
    """What keeps ``table`` from being outputs, or nothing."""
    if table.schema.names != SCHEMA.names:
        return f"its columns are {', '.join(table.schema.names)}"
    wrong = [name for name in SCHEMA.names if table.schema.field(name).type != SCHEMA.field(name).type]
    empty = [name for name in SCHEMA.names if table[name].null_count and name != SCORE]
    unknown = (
        sorted(set(table["part"].unique().to_pylist()) - set(get_args(Part))) if not wrong + empty else []
    )
    if wrong or empty or unknown:
        return f"bad values in {', '.join(wrong or empty or ['part ' + repr(unknown[0])])}"
    return ""


def _write_whole(table: pa.Table, path: Path) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
