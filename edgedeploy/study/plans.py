"""Plans of a budget: made once the float32 and the int8 model of a target are measured, and kept in the study's folder.

A plan names the layers that stay in float32, so it stands in a variant as one that a person wrote. What it was made from is
kept with it (``plans.json``), for the report and for the next run, which takes the kept plans as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, EdgeDeployError, OutOfTime, Unsupported
from edgedeploy.files import write_json
from edgedeploy.interfaces.target import PerLayer, Target, TellsInt8
from edgedeploy.interfaces.task import Array
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.precision import Int8Scheme, PrecisionPlan, PrecisionRule
from edgedeploy.records.units import human
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.reference.export import Reference
from edgedeploy.reference.roundings import Roundings, roundings_of
from edgedeploy.reference.sensitivity import CASES, METHOD, Judge, Simulation, no_metrics, sqnr_db
from edgedeploy.search.plan.programme import ends_of
from edgedeploy.search.plan.refined import SHARES, Refined
from edgedeploy.search.plan.table import Plan
from edgedeploy.search.proposals import seeds_of
from edgedeploy.search.space import Space
from edgedeploy.spec.space import PlanGoal, plan_goal
from edgedeploy.study.cases import scores_of
from edgedeploy.study.evidence_files import move_aside
from edgedeploy.study.layout import PLANS
from edgedeploy.study.plan_costs import alone, gains_ns, own_losses, table_of
from edgedeploy.study.plan_losses import PlanLosses, finite, looked_at
from edgedeploy.study.reading import read_record
from edgedeploy.study.workbench import Workbench

NEEDED: Final = ("float32", "int8")


@dataclass(frozen=True)
class Kept:
    """A layer that a plan keeps in float32: what is lost when it alone is int8, and the time it then saves."""

    layer: str
    loss: float
    saved_ns: float

    def text(self, metric: str) -> str:
        saved = human(max(0.0, self.saved_ns), "ns")
        return f"{self.layer} ({_lost(self.loss, metric)} alone in int8, which saves {saved})"


@dataclass(frozen=True)
class MadePlan:
    """The plan of one budget for one target. ``time_ns`` and ``loss`` are what the programme expects, which no board has
    said; ``ends_ns`` are the times of its quickest plan and of its best. A loss is the share of noise in the outputs, or
    what is lost of ``metric``."""

    plan: PrecisionPlan
    kept: tuple[Kept, ...]
    layers: int
    time_ns: float
    ends_ns: tuple[float, float]
    loss: float
    metric: str = ""
    in_float32: bool = False
    """Whether it leaves no layer in int8: that is the float32 model, and its rules are none."""

    def as_json(self) -> dict[str, Any]:
        facts = {name: value for name, value in vars(self).items() if name not in ("plan", "kept", "ends_ns")}
        return {
            "rules": self.plan.as_json(),
            "kept": [dict(vars(kept)) for kept in self.kept],
            "ends_ns": list(self.ends_ns),
            **facts,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MadePlan:
        """Raises what reading a record raises."""
        low, high = data["ends_ns"]
        numbers = {name: finite(data[name]) for name in ("time_ns", "loss")}
        kept = [Kept(str(item["layer"]), finite(item["loss"]), finite(item["saved_ns"])) for item in data["kept"]]
        return cls(
            PrecisionPlan.from_json(data["rules"]),
            tuple(kept),
            int(data["layers"]),
            ends_ns=(finite(low), finite(high)),
            metric=str(data["metric"]),
            in_float32=bool(data.get("in_float32")),
            **numbers,
        )

    def text(self) -> str:
        """A sentence for people: how many layers stay in float32, which of them hurt most in int8, and why."""
        if self.in_float32:
            return f"none of {self.layers} layers is int8 in it: that is the float32 model, and it has no variant of its own"
        if not self.kept:
            return f"every one of {self.layers} layers is int8 in it"
        worst = ", ".join(item.text(self.metric) for item in sorted(self.kept, key=lambda item: -item.loss)[:3])
        low, high = self.ends_ns
        rest = " and others" if len(self.kept) > 3 else ""
        return (
            f"keeps {len(self.kept)} of {self.layers} layers in float32: {worst}{rest}. "
            f"It spends {human(max(0.0, self.time_ns - low), 'ns')} of the {human(max(0.0, high - low), 'ns')} between the "
            f"quickest plan and the best, and expects {_lost(self.loss, self.metric)}"
        )


def _lost(loss: float, metric: str) -> str:
    return f"{loss:.2g} of {metric} lost" if metric else f"{_decibels(loss):.0f} dB"


MadePlans = dict[str, dict[str, MadePlan]]
"""By target, by the budget's name in the space."""


def budgets_of(space: Space) -> dict[str, PlanGoal]:
    """The plans to be made that a space asks for, by name."""
    found = {str(name): plan_goal(name) for name in space.parameters.get("plan", ())}
    return {name: goal for name, goal in found.items() if goal is not None}


def seeds_in(space: Space) -> int:
    """How many variants every search of this space begins with."""
    return len({space.variant(params).digest for params in seeds_of(space)})


def with_plans(space: Space, made: MadePlans) -> Space:
    plans = {target: {name: item.plan for name, item in own.items()} for target, own in made.items()}
    return replace(space, choices=replace(space.choices, made=plans))


def kept_plans(root: Path) -> MadePlans:
    """The plans that were made in a study's folder; none before. Raises ``DataError`` for a damaged file."""
    path = root / PLANS
    if not path.is_file():
        return {}
    return read_record(path, _from_json, "Remove it: the plans are made again")


def _from_json(data: Mapping[str, Any]) -> MadePlans:
    return {
        str(target): {str(name): MadePlan.from_json(item) for name, item in own.items()}
        for target, own in data["targets"].items()
    }


class PlanMaker:
    """Makes the plans of a study's budgets. ``tell`` gets a line for people, ``progress`` what is being done, ``check`` may
    raise ``OutOfTime``."""

    def __init__(
        self,
        space: Space,
        targets: Mapping[str, Target],
        bench: Workbench,
        root: Path,
        *,
        tell: Callable[[str], None],
        progress: Callable[[str], None] = lambda text: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._space, self._targets, self._bench, self._root = space, targets, bench, root
        self._tell, self._progress, self._check = tell, progress, check
        self.budgets = budgets_of(space)
        self.made = self._kept() if self.budgets else {}

    def _kept(self) -> MadePlans:
        try:
            return kept_plans(self._root)
        except DataError as exc:
            move_aside(self._root / PLANS, self._root)
            self._tell(f"{PLANS} is set aside and made anew: {exc.found}")
            return {}

    def space(self) -> Space:
        """The space with the plans that are made."""
        return with_plans(self._space, self.made)

    def missing(self) -> list[str]:
        """Targets that can have plans and have not all yet."""
        return [
            name for name in self._space.targets if self._able(name) and {*self.budgets} - {*self.made.get(name, {})}
        ]

    def _able(self, name: str) -> bool:
        layers = self._space.choices.layers.get(name, ())
        both = {*NEEDED} <= {*layers} and {*NEEDED} <= {*self._space.target_precisions[name]}
        return both and isinstance(self._targets[name], PerLayer)

    def make(self, measured: Callable[[str], Measurement | None]) -> None:
        """Make what is missing, as far as the two models are measured, and keep it. ``measured`` looks a variant's digest
        up. What a target cannot have is told, and tried again by the next run."""
        for name in self.missing():
            found = {precision: measured(self._variant(name, precision).digest) for precision in NEEDED}
            unknown = [precision for precision, item in found.items() if item is None]
            if unknown:
                self._tell(f"no precision plans for {name}: its {' and '.join(unknown)} model has no measurement")
                continue
            try:
                self.made[name] = self._plans(name, {key: item for key, item in found.items() if item is not None})
            except OutOfTime:
                raise
            except EdgeDeployError as exc:
                self._tell(f"no precision plans for {name}: {exc}")
                continue
            write_json(self._root / PLANS, {"targets": _as_json(self.made)})
            for budget, plan in self.made[name].items():
                self._tell(f"{name} {budget}: {plan.text()}")

    def _variant(self, target: str, precision: str) -> Variant:
        params: dict[str, Scalar] = {**self._space.baseline(target), "precision": precision}
        return self._space.variant(params)

    def _plans(self, target: str, measured: Mapping[str, Measurement]) -> dict[str, MadePlan]:
        reference = self._bench.reference(measured["float32"].variant)
        if any(not goal.metric for goal in self.budgets.values()):
            _require_noise(reference)
        own = self._targets[target]
        scheme = own.int8_scheme if isinstance(own, TellsInt8) else Int8Scheme()
        found = roundings_of(reference.path, scheme)
        losses = self._losses(target, measured["int8"].variant, reference, found, scheme)
        losses.keep()
        ends = sum(math.prod(spec.shape) for spec in (*reference.inputs, *reference.outputs))
        self._progress(f"{target}: precision plans of {len(found.layers)} layers")
        made: dict[str, MadePlan] = {}
        for metric in self._metrics("", *(goal.metric for goal in self.budgets.values())):
            shares = {name: goal.budget for name, goal in self.budgets.items() if goal.metric == metric}
            table = table_of(found, losses.sensitivity, measured, ends_elements=ends, metric=metric)
            if shares:
                looked = looked_at(table, losses.sensitivity, losses.of, metric, (*SHARES, *shares.values()))
                made |= made_plans(looked, shares, metric)
        losses.keep()
        return made

    def _metrics(self, *also: str) -> list[str]:
        """The metrics that plans are asked for by, each once."""
        return sorted({goal.metric for goal in self.budgets.values()} - {""} | {*also})

    def _judge(self, variant: Variant, reference: Reference) -> Judge:
        """The task's metrics that plans are asked for by. Raises ``Unsupported`` for a model with states, whose cases are
        clips."""
        asked = self._metrics()
        if not asked:
            return no_metrics
        if reference.states:
            found = "a case of a model with states is a clip"
            raise Unsupported(f"precision plans by {asked[0]}", found, "Leave the metric out of the budget")
        task = self._bench.task
        cases = task.cases("calibration")
        signs = {
            name: -1.0 if task.metrics[name].direction == "maximize" else 1.0 for name in asked if name in task.metrics
        }

        def judge(number: int, outputs: Mapping[str, Array]) -> Mapping[str, float]:
            values = {name: value for name, value in scores_of(task, outputs, cases[number]).items() if name in signs}
            return {name: signs[name] * value for name, value in values.items() if value is not None}

        return judge

    def _losses(
        self, target: str, variant: Variant, reference: Reference, found: Roundings, scheme: Int8Scheme
    ) -> PlanLosses:
        """Simulated once, and kept beside the reference under what they depend on."""
        cases = hashlib.sha256()
        feeds = [_hashed(feed, cases) for _, feed in zip(range(CASES), self._bench.calibration(variant), strict=False)]
        asked = ", ".join(self._metrics())
        key = {"method": METHOD, "reference": reference.sha256, "scheme": repr(scheme)}
        key |= {"cases": cases.hexdigest(), "asked": asked}
        path = reference.path.with_name(f"sensitivity-{target}.json")

        def simulation() -> Simulation:
            return Simulation(found, iter(feeds), scheme, self._judge(variant, reference))

        def show(text: str) -> None:
            self._check()
            self._progress(f"{target}: {text}")

        return PlanLosses(path, key, len(found.places), simulation, show)


def _require_noise(reference: Reference) -> None:
    """Raises ``Unsupported`` for a model that answers in whole numbers alone: rounding adds no noise to a class."""
    if not any(spec.dtype.startswith(("float", "bfloat")) for spec in reference.outputs):
        remedy = "Name a metric of the task in the budget (auto:0.5:METRIC), or end the network before its ArgMax"
        raise Unsupported("precision plans by noise", "no output holds numbers of floating point", remedy)


def made_plans(looked: Refined, budgets: Mapping[str, float], metric: str = "") -> dict[str, MadePlan]:
    """The plan of each budget: the best of those that were looked at. One with no layer left in int8 is none, and its budget
    stands for the model without a plan."""
    ends = ends_of(looked.table)
    found: dict[str, MadePlan] = {}
    for name, share in budgets.items():
        plan = looked.best(ends.budget_ns(share))
        if plan is None:  # a solver that ended early
            plan = ends.quickest
        found[name] = _made(looked, plan, (ends.quickest.time_ns, ends.best.time_ns), metric)
    return found


def _made(looked: Refined, plan: Plan, ends_ns: tuple[float, float], metric: str) -> MadePlan:
    """A layer's own loss is the one that was seen, not what fits all plans."""
    table = looked.table
    fitted, gains = own_losses(table), gains_ns(table)
    losses = [looked.losses.get(only, loss) for only, loss in zip(alone(table), fitted, strict=True)]
    floats = [place for place, precision in enumerate(plan.precisions) if precision == "float32"]
    narrow = any(
        group.costs["int8"].size_bytes and precision == "int8"
        for group, precision in zip(table.groups, plan.precisions, strict=True)
    )
    floats = floats if narrow else []
    kept = [Kept(layer, losses[place], gains[place]) for place in floats for layer in table.groups[place].layers]
    rules = tuple(PrecisionRule(item.layer, "float32") for item in kept)
    layers = sum(len(group.layers) for group in table.groups)
    return MadePlan(PrecisionPlan(rules), tuple(kept), layers, plan.time_ns, ends_ns, plan.loss, metric, not narrow)


def _decibels(loss: float) -> float:
    """Finite: at most 200 dB, beyond which float32 itself has none."""
    return min(200.0, sqnr_db(loss))


def _as_json(made: MadePlans) -> dict[str, Any]:
    return {target: {name: item.as_json() for name, item in own.items()} for target, own in made.items()}


def _hashed(feed: Mapping[str, Array], digest: Any) -> Mapping[str, Array]:
    for name in sorted(feed):
        digest.update(f"{name} {feed[name].dtype.str} {feed[name].shape}".encode())
        digest.update(np.ascontiguousarray(feed[name]).tobytes())
    return feed
