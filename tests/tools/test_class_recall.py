"""The recall of the attacked class: counted by hand, on the attack's own task, and a cell without attack is refused."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from poisonbench.evaluation.outputs import FILE, Outputs
from tools.class_recall import Recall, main, recall


def outputs() -> Outputs:
    """Four clean images of class 2, one of them named, and four others, three of them named."""
    made = Outputs()
    made.add("attack", "kinds", index=[0, 1], label=[0, 1], goal=[2, 2], prediction=[0, 2])
    made.add(
        "zero_shot",
        "kinds",
        index=range(8),
        label=[2, 2, 2, 2, 0, 0, 1, 1],
        prediction=[2, 0, 0, 1, 0, 0, 1, 2],
    )
    made.add("zero_shot", "elsewhere", index=[0], label=[2], prediction=[2])
    return made


def test_recall_is_counted_on_the_clean_images_of_the_attacked_task() -> None:
    assert recall(outputs(), "cell") == Recall(images=4, named=1, others=0.75, claimed=2)


def test_cells_are_read_from_their_folders(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    outputs().save(tmp_path / "cell" / FILE)
    result = CliRunner().invoke(main, [str(tmp_path / "cell")])
    assert result.exit_code == 0 and "| cell | 4 | 1 | 0.750 | 2 |" in result.output


def test_a_cell_without_predictions_or_attack_is_a_clear_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 2 and FILE in result.output
    clean = Outputs()
    clean.add("zero_shot", "kinds", index=[0], label=[2], prediction=[2])
    clean.save(tmp_path / FILE)
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 2 and "nothing was attacked" in result.output
