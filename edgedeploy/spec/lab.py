"""What a nightly lab measures and where: a lab file in TOML, checked as a whole before any board is touched.

Its ``[[boards]]`` and ``[measure]`` are those of a study file. Paths are relative to the lab file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints, ValidationError, model_validator

from edgedeploy.errors import SpecError, nearest
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.evidence import NotNegative
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.spec.scenarios import Seconds, Table
from edgedeploy.spec.source import SpecSource, first_error
from edgedeploy.spec.study import load_spec
from edgedeploy.spec.toml import read_file, read_toml

LAB_FILE: Final = "lab file"
DEFAULT_BUDGET_S: Final = 8 * 3600.0
MOST_BOARDS: Final = 256
MOST_ENTRIES: Final = 2000
MOST_IMPORTANCE: Final = 1000.0

Name = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
MetricName = Annotated[str, StringConstraints(min_length=1, max_length=80)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Argument = Annotated[str, StringConstraints(max_length=4096)]


class LabTable(Table):
    """What the lab is called, how long its night is, and where it writes."""

    name: Name
    """Name of the lab, in reports and alarms."""
    budget: Seconds = Field(default=DEFAULT_BUDGET_S, gt=0, le=24 * 3600)
    """How long a night may last, such as "6 h": what does not fit is not run, and the report says so. At most 24 h."""
    out: PathText = "nights"
    """Folder for the journal, each night's results, and what is frozen of the entries. It belongs to this lab alone."""
    storage: str | None = Field(default=None, min_length=1, max_length=4096)
    """URL of a PostgreSQL database for the journal, without a password; a SQLite file in `out` when left out."""


class AlarmTable(Table):
    """Who hears of a regression."""

    command: tuple[Argument, ...] = Field(min_length=1, max_length=64)
    """A command on this host, with its arguments, that gets the message on its standard input; at most once a night."""


class EntryTable(Table):
    """One thing that is shipped, measured every night beside its frozen baseline."""

    id: Id
    """Name of the entry in results; it keeps the history, so another artifact of the same product keeps its name."""
    bundle: PathText | None = None
    """Folder of a signed bundle, or its archive. Either this or `study` is given."""
    trust: PathText | None = None
    """With `bundle`: file of the public key (PEM) that must have signed it."""
    study: PathText | None = None
    """Folder of a study, whose `pick` is measured."""
    pick: str = Field(default="pick", min_length=1, max_length=64, pattern=r"^(pick|[0-9a-f]+)$")
    """With `study`: digest of a measured variant (its beginning), or "pick": the study's own."""
    baseline: PathText | None = None
    """What it is timed beside: a bundle signed by the same key (the entry's own stands for its accepted release), or folder
    of a study, whose pick it is. When left out, a bundle's portable ONNX model in ONNX Runtime, and a study's float32
    baseline. It is copied when it is first seen, and stays until `edgedeploy nightly accept`."""
    boards: tuple[str, ...] = Field(default=(), max_length=MOST_BOARDS)
    """Names of the boards to measure on; all of them when left out."""
    owner: str = Field(default="", max_length=200)
    """Who is asked when it becomes worse, in results and alarms."""
    importance: float = Field(default=1.0, gt=0, le=MOST_IMPORTANCE)
    """How much it matters beside the other entries, when the budget is not enough for all: 2 is twice as much."""
    metrics: tuple[MetricName, ...] = Field(default=(), max_length=32)
    """What is judged: metrics of the board, and of the study's task. All that both sides have when left out."""
    rebuild: bool = False
    """Build the artifact again from its recipe on this host, and hold its bytes against those that are shipped. What a
    bundle lacks for that, calibration cases above all, is said: a study has them."""
    accuracy_margin: NotNegative | str | None = None
    """How much the task's metrics may lose against the baseline, in their own unit, before that is a regression."""

    @model_validator(mode="after")
    def _one_source(self) -> EntryTable:
        if (self.bundle is None) == (self.study is None):
            raise ValueError("exactly one of `bundle` and `study` must be given")
        if self.bundle is not None and self.trust is None:
            raise ValueError("`trust` goes with `bundle`: the public key that must have signed it")
        if self.bundle is None and self.trust is not None and self.baseline is None:
            raise ValueError("`trust` goes with a bundle, and this entry has none")
        if self.study is None and self.accuracy_margin is not None:
            raise ValueError("`accuracy_margin` goes with `study`: a bundle has no cases with labels")
        return self

    def boards_of(self, known: Sequence[str]) -> tuple[str, ...]:
        """Names of the entry's boards, in the lab file's order. ``known`` are all of the lab's."""
        return tuple(name for name in known if not self.boards or name in self.boards)


class IdleStudy(Table):
    """A study that a board goes on with while it has nothing else to do."""

    file: PathText
    """The study file."""
    out: PathText
    """The study's folder; it is made when there is none."""
    board: str = Field(min_length=1, max_length=80)
    """Name of the board, in the study file and in this one."""


class IdleTable(Table):
    """What boards do inside the budget when no measurement of the night waits for them."""

    studies: tuple[IdleStudy, ...] = Field(default=(), max_length=256)
    """Studies to go on with, the first unfinished one of each board first. A measurement of the night interrupts them."""


class LabSpec(Table):
    """A whole lab file."""

    lab: LabTable
    """What the lab is called, how long its night is, and where it writes."""
    boards: tuple[BoardTable, ...] = Field(min_length=1, max_length=MOST_BOARDS)
    """The machines of the lab."""
    entries: tuple[EntryTable, ...] = Field(min_length=1, max_length=MOST_ENTRIES)
    """What is measured every night."""
    measure: MeasureTable = MeasureTable()
    """How a board is timed, and when a run counts as disturbed."""
    alarm: AlarmTable | None = None
    """Who hears of a regression."""
    idle: IdleTable = IdleTable()
    """What boards do when no measurement of the night waits for them."""

    @property
    def board_names(self) -> tuple[str, ...]:
        return tuple(board.name for board in self.boards)

    def board(self, name: str) -> BoardTable:
        """Raises ``SpecError`` for a name that is not in the file."""
        for board in self.boards:
            if board.name == name:
                return board
        raise SpecError(f"board {name!r}", "the lab has no board of that name", nearest(name, self.board_names))

    def entry(self, name: str) -> EntryTable:
        """Raises ``SpecError`` for an id that is not in the file."""
        for entry in self.entries:
            if entry.id == name:
                return entry
        known = [entry.id for entry in self.entries]
        raise SpecError(f"entry {name!r}", "the lab has no entry of that id", nearest(name, known))

    def check(self, source: SpecSource) -> None:
        """What only the whole file can get wrong. Raises ``SpecError``."""
        _differ(source, "boards", "name", self.board_names)
        _differ(source, "entries", "id", [entry.id for entry in self.entries])
        for index, entry in enumerate(self.entries):
            for name in entry.boards:
                self._check_board(source, f"entries[{index}].boards", name)
            _differ(source, f"entries[{index}]", "boards", entry.boards)
            _check_metrics(source, index, entry)
        if self.measure.scenarios:
            found = "a night runs none: it times what is shipped beside its baseline"
            raise source.error("measure.scenarios", found, "Remove it, and search with it in a study")
        for index, board in enumerate(self.boards):
            if board.memory is not None:
                found = "a night ends nothing for its memory: it times what is shipped"
                raise source.error(f"boards[{index}].memory", found, "Remove it; a study's board may have it")
        for study in self.idle.studies:
            self._check_board(source, "idle.studies", study.board)

    def _check_board(self, source: SpecSource, key: str, name: str) -> None:
        if name not in self.board_names:
            raise source.error(key, f"the lab has no board {name!r}", nearest(name, self.board_names))


def _differ(source: SpecSource, table: str, key: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            place = f"{table}.{key}" if key in ("boards", "metrics") else f"{table}[{index}].{key}"
            raise source.error(place, f"{name!r} stands twice", "Give each a name of its own")
        seen.add(name)


def _check_metrics(source: SpecSource, index: int, entry: EntryTable) -> None:
    """A bundle's metrics are those of boards alone: it has no cases. A study's task is looked at when it is prepared."""
    _differ(source, f"entries[{index}]", "metrics", entry.metrics)
    for name in entry.metrics if entry.study is None else ():
        if name not in BOARD_METRICS:
            found = f"no board measures {name!r}, and a bundle has no other metrics"
            raise source.error(f"entries[{index}].metrics", found, nearest(name, BOARD_METRICS))
    if isinstance(entry.accuracy_margin, str):
        _check_margin(source, f"entries[{index}].accuracy_margin", entry.accuracy_margin)


def _check_margin(source: SpecSource, key: str, text: str) -> None:
    """A margin with a unit is in that of the task's metric, which only the study knows: the form alone is checked."""
    for unit in ("px", "percent", "1"):
        try:
            allowed = parse_quantity(text, unit)
        except ValueError:
            continue
        if allowed < 0:
            raise source.error(key, f"expected 0 or more, but got {text!r}")
        return
    raise source.error(key, f"expected a number, or a quantity such as '0.5 px', but got {text!r}")


def board_in(path: Path, name: str) -> BoardTable:
    """A board of a lab file or of a study file, whichever it is. Raises ``SpecError``."""
    try:
        is_lab = "lab" in tomllib.loads(read_file(path))
    except (SpecError, ValueError, RecursionError):
        is_lab = False
    return load_lab(path)[0].board(name) if is_lab else load_spec(path)[0].board(name)


def load_lab(path: Path) -> tuple[LabSpec, SpecSource]:
    """Read and validate a lab file. Raises ``SpecError``; reads at most 1 MiB."""
    return parse_lab(read_file(path, LAB_FILE), path)


def parse_lab(text: str, path: Path) -> tuple[LabSpec, SpecSource]:
    """As :func:`load_lab`, from text; ``path`` names it in errors."""
    source = SpecSource(path, text, LAB_FILE)
    data = read_toml(source)
    try:
        spec = LabSpec.model_validate(data)
    except ValidationError as exc:
        raise first_error(exc, source, LabSpec) from None
    spec.check(source)
    return spec, source
