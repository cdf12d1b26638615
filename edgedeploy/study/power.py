"""What a study's splits can prove of its endpoints: told before the search, and again once the first int8 baseline shows how
much single cases differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.evidence.noninferiority import LEVEL, MIN_UNITS, share_units_wanted, share_upper
from edgedeploy.evidence.power import POWERS, cases_needed, provable_margin, sd_of_group_means
from edgedeploy.evidence.quantities import phrase, quantity
from edgedeploy.evidence.spread import (
    ASSUMED_ICC,
    ASSUMED_SDS,
    Spread,
    first_float,
    first_int8,
    is_int8_baseline,
    measured_spread,
)
from edgedeploy.interfaces.task import Task
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Variant
from edgedeploy.spec.goals import rules_of
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.clusters import SCORED, UNKNOWN, Clusters, clusters_of

ASSUMED_LOSS_SHARE: Final = 0.2
"""Of the margin: the true loss that cases are counted for, besides none, where none is measured."""


EXACT_BOUND: Final = "0 or 1 in each case, so by the exact bound while few of them change"


@dataclass(frozen=True)
class Reach:
    """What one split proves of one endpoint, if the paired differences spread as ``spread`` says.

    - ``margins``: by power, the smallest loss that is bounded when nothing is lost; None with too few cases or groups.
    - ``margin_of_all``: the same at 80 % in the strictest step of Holm's procedure over all variants of the budget.
    - ``needed``: cases that show the study's margin at 80 % when nothing is lost, ``needed_with_loss`` when ``loss`` is;
      None for no margin, or when none are enough.
    - ``lost_share``: so many of all cases may break although none of these does, by the exact bound.
    """

    split: str
    cases: int
    groups: int | None
    spread: Spread
    margins: Mapping[float, float | None]
    margin_of_all: float | None
    loss: float
    needed: int | None
    needed_with_loss: int | None
    lost_share: float

    def as_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "cases": self.cases,
            "groups": self.groups,
            "sd": self.spread.sd,
            "icc": self.spread.icc,
            "sd_from": self.spread.of or "assumed",
            "yes_or_no": self.spread.yes_or_no,
            "margins": {f"{power:g}": value for power, value in self.margins.items()},
            "margin_of_all": self.margin_of_all,
            "loss": self.loss,
            "cases_needed": self.needed,
            "cases_needed_with_loss": self.needed_with_loss,
            "lost_share": self.lost_share,
        }


@dataclass(frozen=True)
class Power:
    """One endpoint with what each split proves of it. ``margin``: what the study states, None for none. ``in_sds``: no
    spread is known and none can be assumed of a metric with this unit, so margins are in standard deviations."""

    metric: str
    unit: str
    margin: float | None
    clusters: Clusters
    reaches: tuple[Reach, ...]
    in_sds: bool = False

    @property
    def measured(self) -> bool:
        return any(reach.spread.cases for reach in self.reaches)

    def text(self, value: float | None) -> str:
        """A margin for people."""
        if value is None:
            return "nothing"
        if self.in_sds:
            return f"{value:.2g} sd"
        return f"{value:.2g}" if self.unit == "1" else quantity(value, self.metric, self.unit)

    def lines(self) -> tuple[str, ...]:
        """What to say of it before a search."""
        proven = "; ".join(self._proven(split) for split in SCORED if self.clusters.cases[split])
        first = f"{phrase(self.metric)}, {self._source()}: at 80 % power, when nothing is lost, {proven}"
        return (first,) if self.in_sds or self.margin is None else (first, *self.margin_lines())

    def _source(self) -> str:
        spread = self.reaches[0].spread
        if self.in_sds:
            return "where nothing is known yet of the sd of paired differences"
        if self.measured:
            alike = "" if spread.icc in (None, 1.0) else f", ICC {spread.icc:.2f}"
            return f"with the sd of {spread.of} against the baseline ({self.text(spread.sd)} on {spread.cases} cases{alike})"
        alike = f" and ICC {ASSUMED_ICC:g}" if any(reach.spread.icc for reach in self.reaches) else ""
        return f"with an sd of {_listed(self._sds())} of paired differences{alike} (assumed: nothing is measured yet)"

    def _sds(self) -> list[str]:
        return [self.text(sd) for sd in dict.fromkeys(r.spread.sd for r in self.reaches)]

    def _proven(self, split: str) -> str:
        reaches = [reach for reach in self.reaches if reach.split == split]
        size = f"{reaches[0].cases} cases" + ("" if reaches[0].groups is None else f" in {reaches[0].groups} groups")
        if reaches[0].margins[POWERS[0]] is None:
            few = "too few cases" if reaches[0].groups is None else f"fewer than {MIN_UNITS} groups"
            return f"the {split} split ({size}) bounds no loss: {few}"
        found = _listed([self.text(reach.margins[POWERS[0]]) for reach in reaches])
        return f"the {split} split ({size}) bounds a loss by {found}"

    def margin_lines(self) -> tuple[str, ...]:
        """How many cases the study's margin needs: what a plan and a running search both say."""
        return tuple(filter(None, (self._against_the_margin(), self._of_yes_or_no())))

    def _against_the_margin(self) -> str:
        if self.in_sds:
            return f"how many cases a margin of {phrase(self.metric)} needs is known once an int8 baseline is measured"
        if self.margin is None:
            return (
                f"[evidence] margin says nothing of {phrase(self.metric)}: no variant will be shown to be good enough"
            )
        reaches = [reach for reach in self.reaches if reach.split == SCORED[0]]
        needed = _case_counts([reach.needed for reach in reaches], " cases")
        loss = self.text(reaches[0].loss)
        also = _case_counts([reach.needed_with_loss for reach in reaches])
        stated = f"the study's margin of {self.text(self.margin)} ({phrase(self.metric)}) needs {needed}"
        exact = f" ({EXACT_BOUND})" if reaches[0].spread.yes_or_no else ""
        return f"{stated} at {self._sd_phrase(reaches)}, and {also} if {loss} is truly lost{exact}"

    def _of_yes_or_no(self) -> str:
        """How many the margin needs if the metric is one of yes or no, which is held to an exact bound while few cases
        change; empty where it cannot be one, where it is known whether it is (the task says so, or a measurement shows
        it), and where no margin is stated."""
        if self.unit != "1" or not self.margin or self.reaches[0].spread.yes_or_no is not None:
            return ""
        needed = share_units_wanted(0, 1, self.margin)
        what = "cases" if self.reaches[0].groups is None else "groups"
        return (
            f"where {phrase(self.metric)} is 0 or 1 in each case, it needs at least {needed} {what}, none of them lost"
        )

    def _sd_phrase(self, reaches: Sequence[Reach]) -> str:
        """What the counts of cases hang on, in their order."""
        sds = _listed([self.text(reach.spread.sd) for reach in reaches])
        if self.measured:
            return f"the standard deviation seen, {sds}"
        return f"{'assumed standard deviations' if len(reaches) > 1 else 'an assumed standard deviation'} of {sds}"


def _case_counts(found: Sequence[int | None], word: str = "") -> str:
    """Of each spread; None where no number of cases is enough."""
    if not any(found):
        return "more cases than there can be"
    return _listed([str(count) if count else "never enough" for count in found]) + word


def powers_of(
    spec: StudySpec,
    clusters: Clusters,
    metrics: Mapping[str, MetricInfo],
    baselines: Sequence[Variant],
    measured: Iterable[Measurement] = (),
) -> tuple[Power, ...]:
    """What the splits prove of each endpoint of the study that belongs to the task."""
    known = list(measured)
    return tuple(
        _power(
            metric, margin, spec.budget.trials, clusters, metrics[metric], _spread(known, baselines, metric, metrics)
        )
        for metric, margin in endpoints_of(spec, metrics).items()
    )


def endpoints_of(spec: StudySpec, metrics: Mapping[str, MetricInfo]) -> dict[str, float | None]:
    """Metrics of the task that a pick is held to, with what it may lose of each in its base unit."""
    stated: dict[str, float | None] = {item.objective.metric: item.allowed for item in rules_of(spec, metrics).margins}
    first = next((item.metric for item in spec.objectives if item.metric not in BOARD_METRICS), None)
    return stated or ({} if first is None else {first: None})


def lost_share_line(spec: StudySpec, clusters: Clusters, metrics: Mapping[str, MetricInfo]) -> str:
    """How many cases the stated share of lost ones needs, in a line; empty where none is stated."""
    lost = rules_of(spec, metrics).lost
    if lost is None or lost.share is None:
        return ""
    needed = share_units_wanted(0, 1, lost.share)
    units = [f"{split} {clusters.groups[split]}" for split in SCORED if clusters.cases[split]]
    what = "groups" if clusters.named and clusters.groups != clusters.cases else "cases"
    short = needed is not None and any(clusters.groups[split] < needed for split in SCORED if clusters.cases[split])
    enough = "NOT enough: nothing can be shown" if short else "enough while none is lost"
    there = f"{', '.join(units)} ({enough})"
    return f"lost_share of {lost.share:.0%} needs {needed} {what} of which none is lost; there are: {there}"


class PowerTold:
    """Says what a study's splits can prove: at its beginning, and once the first int8 baseline is measured."""

    def __init__(
        self, spec: StudySpec, task: Task, metrics: Mapping[str, MetricInfo], baselines: Sequence[Variant]
    ) -> None:
        self._spec = spec
        self._metrics = metrics
        self._baselines = baselines
        self._clusters = clusters_of(task)
        self._measured = False

    def at_first(self, measured: Sequence[Measurement]) -> tuple[str, ...]:
        """The first lines of a run; ``measured`` is what the folder holds already."""
        powers = powers_of(self._spec, self._clusters, self._metrics, self._baselines, measured)
        self._measured = any(power.measured for power in powers)
        unknown = () if self._clusters.named or not powers else (UNKNOWN,)
        share = lost_share_line(self._spec, self._clusters, self._metrics)
        return (*(line for power in powers for line in power.lines()), *((share,) if share else ()), *unknown)

    def now(self, variant: Variant, measured: Callable[[], Sequence[Measurement]]) -> tuple[str, ...]:
        """The lines again when ``variant``, which has just been measured, is the first int8 baseline; ``measured`` is what
        the folder holds then."""
        if self._measured or not is_int8_baseline(variant, self._baselines):
            return ()
        powers = powers_of(self._spec, self._clusters, self._metrics, self._baselines, measured())
        self._measured = any(power.measured for power in powers)
        return tuple(line for power in powers if power.measured for line in power.lines())


def _spread(
    known: Sequence[Measurement], baselines: Sequence[Variant], metric: str, metrics: Mapping[str, MetricInfo]
) -> Spread | None:
    """From the first int8 baseline, against the reference baseline; None before both are measured."""
    scored = [item for item in known if metric in item.metrics]
    reference, int8 = first_float(scored, baselines), first_int8(scored, baselines)
    if reference is None or int8 is None:
        return None
    sign = 1 if metrics[metric].direction == "maximize" else -1
    return measured_spread(int8, reference, metric, sign=sign, of=f"{int8.variant.target} int8")


def _power(
    metric: str, margin: float | None, trials: int, clusters: Clusters, info: MetricInfo, spread: Spread | None
) -> Power:
    in_sds = spread is None and info.unit != "1"
    icc = ASSUMED_ICC if clusters.named else None
    spreads = (
        [spread]
        if spread
        else [Spread(sd, icc, yes_or_no=info.yes_or_no) for sd in ((1.0,) if in_sds else ASSUMED_SDS)]
    )
    reaches = [
        _reach(split, clusters, item, None if in_sds else margin, trials)
        for split in SCORED
        if clusters.cases[split]
        for item in spreads
    ]
    return Power(metric, info.unit, margin, clusters, tuple(reaches), in_sds)


def _reach(split: str, clusters: Clusters, spread: Spread, margin: float | None, trials: int) -> Reach:
    cases, groups = clusters.cases[split], clusters.groups[split]
    grouped = clusters.named and groups < cases
    units, sd, size = round(cases * spread.defined), spread.sd, 1.0
    if grouped:
        size = max(1.0, units / groups)
        units, sd = min(groups, units), sd_of_group_means(spread.sd, size, spread.icc or 0.0)
    enough = units >= MIN_UNITS
    exact = bool(spread.yes_or_no)
    margins = {power: provable_margin(units, sd, power=power, yes_or_no=exact) if enough else None for power in POWERS}
    strictest = 1 - (1 - LEVEL) / max(1, trials)
    loss = spread.loss if spread.cases and spread.loss is not None else ASSUMED_LOSS_SHARE * (margin or 0.0)
    needed = None if margin is None else cases_needed(margin, sd, yes_or_no=exact)
    with_loss = None if margin is None else cases_needed(margin, sd, true_loss=max(0.0, loss), yes_or_no=exact)
    return Reach(
        split,
        cases,
        groups if grouped else None,
        spread,
        margins,
        provable_margin(units, sd, level=strictest, yes_or_no=exact) if enough else None,
        max(0.0, loss),
        _in_cases(needed, size / spread.defined),
        _in_cases(with_loss, size / spread.defined),
        share_upper(0, groups if grouped else cases),
    )


def _in_cases(units: int | None, each: float) -> int | None:
    """Of all cases, of which one unit takes ``each``."""
    return None if units is None else round(max(units, MIN_UNITS) * each)


def _listed(items: Sequence[str]) -> str:
    return " / ".join(items)
