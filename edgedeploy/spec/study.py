"""What the user writes: a study file in TOML, checked as a whole before anything starts.

Two passes: :func:`load_spec` checks the file by itself (syntax, keys, types, units of time and counts);
:meth:`StudySpec.check` compares it with what the task, the targets and the metrics offer. Every error names the file,
the line (where it can be found), the key, what was expected, and the nearest known name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from edgedeploy.errors import SpecError, nearest
from edgedeploy.records.metric_table import BOARD_METRICS, RUN_METRICS, not_told_by, of_space
from edgedeploy.records.metrics import Clock, MetricInfo
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.records.shrink import SHRINK_KEYS
from edgedeploy.records.variant import (
    BY_TIME,
    DEPLOYMENT_KEYS,
    MOST_BATCH,
    MOST_INSTANCES,
    PRECISIONS,
    Scalar,
)
from edgedeploy.records.weightbits import WEIGHT_BITS
from edgedeploy.spec.boards import EMULATED_WORD, BoardTable, emulated_board, memory_bytes, with_memory_limit
from edgedeploy.spec.codecs import check_codecs
from edgedeploy.spec.conditions import OnlyTable, check_conditions
from edgedeploy.spec.evidence import EvidenceTable, check_evidence
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.spec.metric_checks import check_margin, check_task_metrics, known_metric
from edgedeploy.spec.objectives import ConstraintTable, ObjectiveTable, PickTable, check_limit
from edgedeploy.spec.recovery import RecoveryTable, check_elastic
from edgedeploy.spec.scenarios import Seconds
from edgedeploy.spec.scenarios import Table as _Table
from edgedeploy.spec.search import MAX_POINTS, Combination, Point, SearchTable, check_co_design, check_points
from edgedeploy.spec.shrink import check_shrink
from edgedeploy.spec.source import SpecSource, first_error
from edgedeploy.spec.space import (
    MAX_CHOICES,
    check_allocations,
    check_plan_metrics,
    check_plans,
    check_serving,
    check_storage,
    check_training,
    expand,
    plan_goal,
    subset,
    whole_numbers,
)
from edgedeploy.spec.task import TaskTable
from edgedeploy.spec.tiles import check_tiles
from edgedeploy.spec.toml import read_file, read_toml

WHOLE_NUMBERS = (
    *(("threads", 1, 256), ("calibration_cases", 1, 1_000_000), ("recovery_epochs", 0, 100_000)),
    *(("max_batch", 1, MOST_BATCH), ("instances", 1, MOST_INSTANCES)),
)
"""Parameters that are whole numbers, from and to. Thousands of threads bring a board to a standstill."""


class StudyTable(_Table):
    """What the study is called and what it builds for."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    """Name of the study. From Python its folder is studies/NAME where `out` is not given; commands ask for --out."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Decides every random choice: proposals, training, bootstrap."""
    targets: tuple[str, ...] = Field(min_length=1, max_length=16)
    """Runtimes to build for. The first is the reference target: candidates are measured beside its float32 baseline."""
    storage: str | None = None
    """URL of a PostgreSQL database for the history of proposals, without a password; a SQLite file when left out."""
    ranges: str | None = Field(default=None, min_length=1)
    """File of ranges of activations, those of several sites for example, that int8 takes instead of calibrating."""


class BudgetTable(_Table):
    """When the search ends."""

    trials: int = Field(ge=1, le=100_000)
    """Variants that are evaluated, at most."""
    wall_clock: Seconds = Field(default=24 * 3600.0, gt=0)
    """Time after which the search ends, such as "3 h"; it ends a training too, whose checkpoint is kept."""
    recovered_baseline: bool = True
    """Where variants are recovered by training, also train the baseline as much further and measure it."""


class StudySpec(_Table):
    """A whole study file. It is frozen: another spec is another study."""

    study: StudyTable
    """What the study is called and what it builds for."""
    task: TaskTable
    """The model, its data and its metrics."""
    boards: tuple[BoardTable, ...] = Field(min_length=1, max_length=64)
    """The machines that variants may be measured on; the first one unless --board names another."""
    space: dict[str, tuple[Scalar, ...]]
    """What is searched: each parameter with its values, a list or { low, high, step }."""
    plans: dict[str, dict[str, str]] = Field(default_factory=dict, max_length=MAX_CHOICES)
    """Precision plans by name, each from layer name or pattern to precision; the first match decides. ``space.plan``
    lists the plans to search."""
    objectives: tuple[ObjectiveTable, ...] = Field(min_length=1, max_length=8)
    """What the search improves, the most important first."""
    constraints: tuple[ConstraintTable, ...] = ()
    """Limits that a variant has to keep to be on the front."""
    budget: BudgetTable
    """When the search ends."""
    measure: MeasureTable = MeasureTable()
    """How a board is timed, and when a run counts as disturbed."""
    evidence: EvidenceTable = EvidenceTable()
    """What has to be shown of a variant before it may be shipped in the baseline's place."""
    pick: PickTable = PickTable()
    """Older place of what a pick may lose."""
    recovery: RecoveryTable = RecoveryTable()
    """How changed architectures are recovered."""
    search: SearchTable = SearchTable()
    """How variants are proposed."""
    tries: tuple[Point, ...] = Field(default=(), max_length=MAX_POINTS, alias="try")
    """Points of your own, each from parameter to value; parameters that are not named have the baseline's value. They are
    evaluated after the baselines, before anything is proposed."""
    only: tuple[OnlyTable, ...] = Field(default=(), max_length=MAX_POINTS)
    """Parameters that matter only where others have certain values."""
    never: tuple[Combination, ...] = Field(default=(), max_length=MAX_POINTS)
    """Combinations that are never proposed, each from parameter to a value or a list of values: all of them have to match.
    Baselines are measured all the same."""

    @model_validator(mode="before")
    @classmethod
    def _one_board(cls, spec: Any) -> Any:
        """Accepts ``board = "emulated:arm64"`` or one table ``[board]`` for a study with one board."""
        if not isinstance(spec, dict) or "board" not in spec:
            return with_memory_limit(spec) if isinstance(spec, dict) else spec
        if "boards" in spec:
            raise ValueError("`board` and `boards` both name boards: keep one of them")
        rest = {key: value for key, value in spec.items() if key != "board"}
        return with_memory_limit({**rest, "boards": [spec["board"]]})

    @field_validator("space", mode="before")
    @classmethod
    def _choices(cls, space: Any) -> Any:
        if not isinstance(space, dict):
            raise ValueError("expected a table of parameter = [values]")
        if not space:
            raise ValueError(
                "the space is empty: name at least one parameter with its values, such as width = [1.0, 0.5]"
            )
        return {key: expand(key, values) for key, values in space.items()}

    @model_validator(mode="after")
    def _unique_names(self) -> StudySpec:
        for what, names in (
            ("targets", list(self.study.targets)),
            ("boards", [board.name for board in self.boards]),
            ("objectives", [objective.metric for objective in self.objectives]),
        ):
            double = sorted({name for name in names if names.count(name) > 1})
            if double:
                raise ValueError(f"{what} must differ, but {', '.join(double)} stands twice")
        memory_bytes(self.boards)  # raises when they differ
        return self

    @property
    def memory_limit_bytes(self) -> int | None:
        """What a variant may have in memory on the study's boards."""
        return memory_bytes(self.boards)

    def board(self, name: str | None) -> BoardTable:
        """The named board, or the first one; ``SpecError`` for a name that is not in the file."""
        if name is None:
            return self.boards[0]
        for board in self.boards:
            if board.name == name:
                return board
        if name.startswith(EMULATED_WORD):
            return emulated_board(name)
        known = [board.name for board in self.boards]
        raise SpecError(f"board {name!r}", "the study has no board of that name", nearest(name, known))

    def check_clock(self, source: SpecSource, board: str, clock: Clock) -> None:
        """Refuse goals and scenarios that a board with this clock cannot measure."""
        if clock != "wall" and self.measure.scenarios:
            found = f"board {board!r} has no time of its own, and every scenario measures time"
            raise source.error("measure.scenarios", found, "Remove them, or choose another board")
        if clock != "wall" and BY_TIME in self.space.get("allocation", ()):
            found = f"board {board!r} has no time of its own, and {BY_TIME!r} follows the times of layers"
            raise source.error("space.allocation", found, 'Search "compute" or "bytes", or choose another board')
        reasons = not_told_by(clock)
        remedies = {
            "none": "Ask for size_bytes, or virtual_ns on emulated:arm64-system",
            "virtual": "Ask for virtual_ns",
        }
        for kind in ("objectives", "constraints"):
            for index, goal in enumerate(getattr(self, kind)):
                if goal.metric in reasons:
                    found = f"board {board!r} has no {goal.metric}: {reasons[goal.metric]}"
                    raise source.error(f"{kind}[{index}].metric", found, remedies.get(clock, "Choose another metric"))

    def metric_table(self, task_metrics: Mapping[str, MetricInfo]) -> dict[str, MetricInfo]:
        return {**RUN_METRICS, **self.measure.metrics(), **of_space(self.space), **task_metrics}

    def check(
        self,
        source: SpecSource,
        *,
        architecture: Mapping[str, Sequence[Scalar]],
        task_metrics: Mapping[str, MetricInfo],
        known_targets: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Compare the spec with what the task and the targets offer. ``known_targets`` maps target to its
        precisions."""
        for target in self.study.targets:
            if target not in known_targets:
                raise source.error("study.targets", f"no target named {target!r}", nearest(target, known_targets))
        self._check_space(source, architecture, known_targets)
        check_task_metrics(task_metrics)
        check_plan_metrics(source, self.space, task_metrics)
        table = self.metric_table(task_metrics)
        for index, objective in enumerate(self.objectives):
            key = f"objectives[{index}].metric"
            info = known_metric(source, key, objective.metric, table)
            if objective.goal is not None and objective.goal != info.direction:
                raise source.error(
                    f"objectives[{index}].goal",
                    f"{objective.metric} is better when you {info.direction} it, but got goal = {objective.goal!r}",
                    "Remove `goal`, or choose another metric",
                )
            self._check_measurable(source, key, objective.metric)
            check_margin(source, f"objectives[{index}].min_effect", objective.min_effect, info.unit, objective.metric)
        first = next((goal.metric for goal in self.objectives if goal.metric not in BOARD_METRICS), None)
        check_evidence(source, self.evidence, self.pick.non_inferiority_margin, first, table)
        for index, constraint in enumerate(self.constraints):
            info = known_metric(source, f"constraints[{index}].metric", constraint.metric, table)
            self._check_measurable(source, f"constraints[{index}].metric", constraint.metric)
            check_limit(source, f"constraints[{index}]", constraint, info)

    def _check_measurable(self, source: SpecSource, key: str, metric: str) -> None:
        """Refuse a metric that no board of the study can measure, or that needs more queries than the study asks for:
        every trial would lack it."""
        row = BOARD_METRICS.get(metric)
        if row is None:
            return
        if row.not_emulated and all(board.kind == "emulated" for board in self.boards):
            raise source.error(key, row.not_emulated, "Choose another metric")
        queries = self.measure.timed_queries
        if queries < row.queries:
            raise source.error(key, f"{metric} needs {row.queries} timed queries, but [measure] asks for {queries}")

    def _check_space(
        self,
        source: SpecSource,
        architecture: Mapping[str, Sequence[Scalar]],
        known_targets: Mapping[str, tuple[str, ...]],
    ) -> None:
        known = [*architecture, *(key for key in DEPLOYMENT_KEYS if key != "target"), *SHRINK_KEYS]
        for key, values in self.space.items():
            path = f"space.{key}"
            if key == "target":
                raise source.error(path, "targets are named in [study] targets", "Move them there")
            if key not in known:
                raise source.error(
                    path, f"neither the task nor edgedeploy has a parameter {key!r}", nearest(key, known)
                )
            if key in architecture:
                subset(source, path, values, tuple(architecture[key]), "the task's values are")
        subset(source, "space.precision", self.space.get("precision", ()), PRECISIONS, "precisions are")
        check_allocations(source, self.space)
        check_shrink(source, self.space, architecture, bool(self.recovery.elastic_epochs))
        offered = {precision for name in self.study.targets for precision in known_targets[name]}
        for precision in self.space.get("precision", ()):
            if precision not in offered:
                found = f"no target of this study builds {precision}"
                raise source.error("space.precision", found, f"They build: {', '.join(sorted(offered))}")
        for width in self.space.get("width", ()):
            if isinstance(width, (bool, str)) or not 0.0 < width <= 1.0:
                found = f"0 < width <= 1 must hold, but got {width!r}"
                raise source.error("space.width", found, "width is the share of channels that pruning keeps")
        check_elastic(source, self.space, self.recovery.elastic_epochs, architecture)
        self._check_settings(source)
        check_co_design(source, self.search, len(self.objectives))
        check_points(source, self.tries, self.never, self.space, self.study.targets)
        usual: dict[str, Scalar] = {"target": self.study.targets[0], "precision": "float32", "width": 1.0}
        check_conditions(source, self.only, self.tries, self.space, self.study.targets, usual)

    def _check_settings(self, source: SpecSource) -> None:
        for key, least, most in WHOLE_NUMBERS:
            whole_numbers(source, f"space.{key}", self.space.get(key, ()), least, most)
        for mode in self.space.get("power_mode", ()):
            if not isinstance(mode, str) or not mode:
                raise source.error("space.power_mode", f"expected names of modes, but got {mode!r}")
        subset(source, "space.weight_bits", self.space.get("weight_bits", ()), WEIGHT_BITS, "int8 weights have")
        check_tiles(source, self.space)
        check_storage(source, self.space)
        check_codecs(source, self.space, self.measure.scenarios, self.measure.realtime.stages)
        check_plans(source, self.space, self.plans)
        check_serving(source, self.space, self.measure.scenarios, self.measure.server.queue)
        check_training(source, self.space)

    def check_power_modes(
        self, source: SpecSource, board: str, table: BoardTable | None, offered: Mapping[str, str]
    ) -> None:
        """Compare the space with the board's power modes. ``offered`` maps each mode to what sets it; ``table`` is the
        board's table in this study, if it has one."""
        for mode in self.space.get("power_mode", ()):
            if mode not in offered:
                found = f"board {board!r} has no power mode {mode!r} that can be set"
                raise source.error("space.power_mode", found, f"It has: {', '.join(offered) or 'none'}")
            if table is not None and getattr(table, offered[str(mode)]) is not None:
                found = f"{mode!r} and the table of board {board!r} both set its {offered[str(mode)]}"
                raise source.error("space.power_mode", found, "Remove it from the board's table")

    def precision_plans(self) -> dict[str, PrecisionPlan]:
        return {name: PrecisionPlan.of(rules) for name, rules in self.plans.items()}

    def check_choices(
        self,
        source: SpecSource,
        *,
        layer_precisions: Iterable[str],
        calibrations: Iterable[str],
        seven_bit_precisions: Iterable[str],
    ) -> None:
        """Refuse plans, calibrations and weight bits that none of the study's targets supports."""
        asked = {*self.space.get("precision", ()), *(name for plan in self.plans.values() for name in plan.values())}
        can = sorted(seven_bit_precisions)
        if "weight_bits" in self.space and not asked & set(can):
            found = "no target of this study builds what the space asks for with other than 8-bit weights"
            remedy = f"Add {' or '.join(map(repr, can))} to precision" if can else "Remove it"
            raise source.error("space.weight_bits", found, remedy)
        offered = sorted(layer_precisions)
        budgets = [name for name in self.space.get("plan", ()) if plan_goal(name) is not None]
        if budgets and not {"float32", "int8"} <= {*offered}:
            found = f"no target of this study builds single layers in float32 and int8, as {budgets[0]!r} asks"
            raise source.error("space.plan", found, "Remove it")
        for name, plan in self.precision_plans().items():
            for precision in plan.precisions:
                if precision not in offered:
                    found = f"no target of this study builds single layers in {precision}"
                    raise source.error(f"plans.{name}", found, f"They build: {', '.join(offered) or 'none'}")
        ways = sorted(calibrations)
        for way in self.space.get("calibration", ()):
            if way not in ways:
                found = f"no target of this study calibrates by {way}"
                raise source.error("space.calibration", found, f"They have: {', '.join(ways) or 'none'}")


def load_spec(path: Path, *, kept: bool = False) -> tuple[StudySpec, SpecSource]:
    """Read and validate a study file by itself; ``kept`` as in :func:`parse_spec`. Raises ``SpecError``; reads at most
    1 MiB."""
    return parse_spec(read_file(path, missing="`edgedeploy recipe` lists the ones that ship"), path, kept=kept)


def parse_spec(text: str, path: Path, *, kept: bool = False) -> tuple[StudySpec, SpecSource]:
    """As :func:`load_spec`, from text; ``path`` names it in errors. A file that is ``kept`` in a study's folder may be of
    earlier code, which took ``9.0`` for a count and ``"1"`` for a number."""
    source = SpecSource(path, text)
    data = read_toml(source)
    try:
        return StudySpec.model_validate(data, strict=False if kept else None), source
    except ValidationError as exc:
        raise first_error(exc, source, StudySpec) from None
