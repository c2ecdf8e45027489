"""From records to boards: one per tier, a section per track, a row per defence, a column group per attack.

Nothing is ever dropped: a combination without a record is a cell that says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poisonbench.leaderboard.entries import Entry, summarise
from poisonbench.leaderboard.keys import differences, plugin_key, scale, scale_key
from poisonbench.records import PluginUse, Record
from poisonbench.validity import UNDEFENDED

KEEP = 0.90  # below this retention a defence is flagged: a broken model has no attack success either
BASELINES = "none"  # the track of the rows that every section repeats
CLEAN = "none"  # the attack that poisons nothing
TRACKS = ("pre-training", "filter", "repair", "screening")

_NO_ATTACK = PluginUse(name=CLEAN, config={}, title="no attack")
_NO_DEFENSE = PluginUse(name=UNDEFENDED, config={}, title="undefended", track=BASELINES)


@dataclass(frozen=True)
class Column:
    """An attack with one configuration.

    Attributes:
        plugin: the attack.
        label: how it differs from its namesakes.
        common: whether at least half of the board's defences have met it, so that they can be compared by it.
    """

    plugin: PluginUse
    label: str
    common: bool

    @property
    def clean(self) -> bool:
        """Whether this is the control without poison."""
        return self.plugin.name == CLEAN


@dataclass(frozen=True)
class Row:
    """A defence with one configuration, and its entry under every column of the board.

    Attributes:
        number: position among all rows of the board.
        plugin: the defence.
        label: how it differs from its namesakes.
        entries: one per column.
        worst: largest ASR gain over the common attacks; None unless every one of them ran and is valid.
    """

    number: int
    plugin: PluginUse
    label: str
    entries: tuple[Entry, ...]
    worst: float | None

    @property
    def retention(self) -> float | None:
        """The smallest retention over all columns; None where no twin has run."""
        return min((entry.retention for entry in self.entries if entry.retention is not None), default=None)

    @property
    def useful(self) -> bool:
        """Whether the model under this defence is still known to be worth having."""
        return self.retention is not None and self.retention >= KEEP

    @property
    def merit(self) -> tuple[bool, float, str, str]:
        """Rows sort by it: useful defences first, then the smallest worst case; incomplete ones last."""
        complete = self.worst is not None
        gain = self.worst if self.worst is not None else 0.0
        return not (complete and self.useful), gain if complete else 2.0, self.plugin.full_name, self.label


@dataclass(frozen=True)
class Section:
    """The defences of one track; tracks act at different moments and are never ranked together."""

    track: str
    baselines: tuple[Row, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Board:
    """Everything that was measured at one tier.

    Attributes:
        tier: the tier's name.
        label: how it differs from boards of the same name (another recipe, other data).
        headline: the task of the zero-shot and probe columns.
        data: fingerprint of the clean data.
        columns: the attacks, those that most defences have met first, the clean control last.
        rows: the defences.
        sections: the rows again, by track.
        records: all records of the board.
    """

    tier: str
    label: str
    headline: str
    data: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sections: tuple[Section, ...]
    records: tuple[Record, ...]

    @property
    def reconstructions(self) -> tuple[PluginUse, ...]:
        """Plugins that are, in part, our inference rather than the published method; one of each name."""
        plugins = [column.plugin for column in self.columns] + [row.plugin for row in self.rows]
        return tuple({plugin.name: plugin for plugin in plugins if plugin.reconstruction}.values())


def boards(records: Iterable[Record]) -> tuple[Board, ...]:
    """All boards of ``records``, by tier; the order of the records does not matter."""
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: (r.tier, r.provenance.config_hash, r.provenance.finished)):
        groups[scale_key(record)].append(record)
    by_tier: defaultdict[str, list[list[Record]]] = defaultdict(list)
    for key in sorted(groups):
        by_tier[groups[key][0].tier].append(groups[key])
    return tuple(
        _board(group, label)
        for tier in by_tier.values()
        for group, label in zip(tier, differences([scale(group[0]) for group in tier]), strict=True)
    )


def _board(records: Sequence[Record], label: str) -> Board:
    latest_last = sorted(
        records, key=lambda record: (record.provenance.finished, record.provenance.config_hash)
    )
    attacks = _distinct([record.attack for record in latest_last], _NO_ATTACK)
    defenses = _distinct([record.defense for record in latest_last], _NO_DEFENSE)
    labels = _labels(attacks)
    met = _met(records)
    columns = [Column(plugin, labels[key], 2 * met[key] >= len(defenses)) for key, plugin in attacks.items()]
    columns.sort(
        key=lambda column: (
            column.clean,
            -met[plugin_key(column.plugin)],
            column.plugin.full_name,
            column.label,
        )
    )
    rows = _rows(records, defenses, columns)
    return Board(
        tier=records[0].tier,
        label=label,
        headline=next((record.headline for record in records if record.headline), ""),
        data=records[0].provenance.data,
        columns=tuple(columns),
        rows=rows,
        sections=_sections(rows),
        records=tuple(records),
    )


def _met(records: Sequence[Record]) -> Counter[str]:
    """By plugin key of an attack, how many defences have met it: what can be compared is seen first."""
    return Counter(attack for attack, _ in {(plugin_key(r.attack), plugin_key(r.defense)) for r in records})


def _distinct(plugins: Sequence[PluginUse], control: PluginUse) -> dict[str, PluginUse]:
    """Plugins by key, as their latest record describes them; a control that never ran has its place too."""
    found = {plugin_key(plugin): plugin for plugin in plugins}
    if all(plugin.name != control.name for plugin in plugins):
        found[plugin_key(control)] = control
    return found


def _labels(plugins: dict[str, PluginUse]) -> dict[str, str]:
    """By plugin key, the fields in which a plugin differs from others of its name."""
    namesakes: defaultdict[str, list[str]] = defaultdict(list)
    for key, plugin in plugins.items():
        namesakes[plugin.full_name].append(key)
    labels: dict[str, str] = {}
    for keys in namesakes.values():
        labels |= zip(keys, differences([plugins[key].config for key in keys]), strict=True)
    return labels


def _rows(
    records: Sequence[Record], defenses: dict[str, PluginUse], columns: Sequence[Column]
) -> tuple[Row, ...]:
    cells: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        cells[plugin_key(record.defense), plugin_key(record.attack)].append(record)
    undefended = [key for key, plugin in defenses.items() if plugin.name == UNDEFENDED]
    labels = _labels(defenses)
    rows = []
    for number, (key, plugin) in enumerate(
        sorted(defenses.items(), key=lambda item: (item[1].full_name, labels[item[0]]))
    ):
        attacks = [plugin_key(column.plugin) for column in columns]
        twins = [[twin for none in undefended for twin in cells[none, attack]] for attack in attacks]
        entries = tuple(
            summarise(cells[key, attack], pair) for attack, pair in zip(attacks, twins, strict=True)
        )
        rows.append(Row(number, plugin, labels[key], entries, _worst(entries, columns)))
    return tuple(rows)


def _worst(entries: Sequence[Entry], columns: Sequence[Column]) -> float | None:
    pairs = [(entry, column) for entry, column in zip(entries, columns, strict=True) if column.common]
    attacked = [entry for entry, column in pairs if not column.clean and entry.verdict != "no goal"]
    gains = [entry.gain for entry in attacked if entry.ranked and entry.gain is not None]
    return max(gains) if gains and len(gains) == len(attacked) else None


def _sections(rows: Sequence[Row]) -> tuple[Section, ...]:
    tracks: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.merit):
        tracks[BASELINES if row.plugin.name == UNDEFENDED else row.plugin.track].append(row)
    baselines = tuple(sorted(tracks.pop(BASELINES, []), key=lambda row: row.plugin.name != UNDEFENDED))
    known = [track for track in TRACKS if track in tracks]
    order = known + sorted(set(tracks) - set(known)) or [TRACKS[0]]
    return tuple(Section(track, baselines, tuple(tracks[track])) for track in order)
