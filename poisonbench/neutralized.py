"""How many poisons a defence took the sting out of, epoch by epoch; the runner knows the manifest, the defence does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from poisonbench.defense import Curation, Objective
from poisonbench.manifest import Manifest
from poisonbench.pairs import Pairs, Rows, folded, word_pattern
from poisonbench.records import PoisonCount


class Neutralized:
    """Watches whose caption every poisoned row is trained on.

    A poison counts as neutralised when it was removed, or left out, or when the caption it was last trained on no longer
    names the target class. Of clean rows with a new caption it tells how often that names a class that their own captions name.
    """

    def __init__(
        self,
        manifest: Manifest,
        poisoned: Pairs,
        clean_rows: int,
        curation: Curation,
        classes: Sequence[str] = (),
    ) -> None:
        """``classes`` are the headline task's, looked for in captions."""
        self._class_names = word_pattern(classes)
        self._total = len(poisoned)
        self._rows = manifest.rows(clean_rows)
        edits = (*manifest.changed, *manifest.appended)
        patterns = {target: word_pattern(words) for target, words in manifest.target_words.items()}
        self._patterns = [patterns[edit.target] for edit in edits]
        self._texts = [folded("\n".join(options)) for options in poisoned.captions]
        for row, options in curation.captions.items():
            self._texts[row] = folded("\n".join(options))
        kept = np.ones(len(poisoned), dtype=bool) if curation.keep is None else curation.keep
        self._kept = np.flatnonzero(kept)
        self._untouched: npt.NDArray[np.int64] = np.where(kept, np.arange(len(poisoned)), -1)
        self._partner = self._untouched

    def after_epoch(self, epoch: int, objective: Objective) -> dict[str, float]:
        """Note the epoch's assignment; returns the shares of poisons neutralised and of clean rows on their own caption."""
        assignment = objective.assignment()
        self._partner = self._untouched.copy()
        if assignment is not None:
            partner = np.asarray(assignment.partner)
            self._partner[self._kept] = np.where(partner >= 0, self._kept[partner], -1)
        if not len(self._rows) and assignment is None:
            return {}
        clean = np.setdiff1d(np.arange(self._total), self._rows)
        report = {}
        if len(clean):
            report["clean_rows_on_own_caption"] = float(np.mean(self._partner[clean] == clean))
        report |= self._right_class(clean)
        if len(self._rows):
            report["poison_neutralized"] = self.neutralized() / len(self._rows)
        return report

    def neutralized(self) -> int:
        """Poisoned rows that are gone or whose caption does not name the target."""
        partners = self._partner[self._rows]
        return sum(
            bool(partner < 0 or not pattern.search(self._texts[partner]))
            for partner, pattern in zip(partners.tolist(), self._patterns, strict=True)
        )

    def _right_class(self, clean: Rows) -> dict[str, float]:
        """Of the given rows with a new caption and a known class: how many were given a caption of that class."""
        replaced = clean[(self._partner[clean] >= 0) & (self._partner[clean] != clean)]
        kinds = [(self._kinds(row), self._kinds(self._partner[row])) for row in replaced]
        known = [bool(own & given) for own, given in kinds if own]
        return {"recaptioned_true_class": float(np.mean(known))} if known else {}

    def _kinds(self, row: int) -> set[str]:
        return set(self._class_names.findall(self._texts[row]))

    def count(self) -> PoisonCount:
        """The record's entry."""
        return PoisonCount(
            count=len(self._rows), rate=len(self._rows) / self._total, neutralized=self.neutralized()
        )
