"""What else a task may say of its metrics: some belong to a whole split, and some cases belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Array, Case, Task
from edgedeploy.records.metrics import MetricInfo


@runtime_checkable
class ScoresSplit(Protocol):
    """A task with metrics that no single case has: AUROC, sensitivity at a fixed specificity, F1, mAP.

    A study uses them as it uses the metrics of cases. How sure they are is found by scoring resampled cases: a case may be
    there twice, or not at all. ``split_resamples``, an attribute that may be left out, is the number of these draws (1000);
    a slow score may ask for fewer, at least 100.
    """

    split_metrics: Mapping[str, MetricInfo]

    def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> dict[str, float | None]:
        """Every one of ``split_metrics`` over ``cases``; ``outputs`` are theirs, each as ``Task.evaluate`` gets it.

        None where a metric is undefined for these cases (AUROC of one class); never NaN. Must not depend on the order of
        the cases.
        """


@runtime_checkable
class RanksCases(Protocol):
    """A task with an AUROC among its ``split_metrics`` that says what it is made of, so that how sure a difference is
    follows from the ranks themselves (DeLong; Obuchowski where cases belong together) and not from draws alone.

    A protocol of its own because most metrics of a split have no such variance.
    """

    def ranked(
        self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]
    ) -> Mapping[str, tuple[Sequence[bool], Sequence[float]]]:
        """By metric, for each of ``cases``: whether it is positive, and the score that it is ranked by."""


@runtime_checkable
class FixedOnBaseline(Protocol):
    """A task that scores by something which is set once, on the float baseline: the threshold of a sensitivity. Variants
    that each set their own would be compared at different points, and every one of them at its best.

    A protocol of its own because most tasks set nothing.
    """

    def fix(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> Mapping[str, float]:
        """Set it from what the float reference of the baseline answers on the selection split. Called once in a run, before
        anything is scored; ``evaluate`` gives None for what hangs on it before. Returns what was set, by name,
        for people."""


@runtime_checkable
class Grouped(Protocol):
    """A task whose cases are not independent: several images of one patient, clip or site. Whole groups are resampled then,
    and tests are made on the means of groups. ``groups_known = False``, an attribute that may be left out, says that this
    data does not tell; a task whose cases are independent gives each of them a group of its own.
    """

    def group_of(self, case: Case) -> str:
        """Cases with an equal answer belong together."""


def names_groups(task: Grouped) -> bool:
    """Whether the task knows which of its cases belong together."""
    return getattr(task, "groups_known", True) is not False


def metrics_of(task: Task) -> dict[str, MetricInfo]:
    """The metrics of cases and those of the split, which no case has. Raises ``SpecError`` when one name stands for both."""
    of_split = task.split_metrics if isinstance(task, ScoresSplit) else {}
    double = sorted(set(task.metrics) & set(of_split))
    if double:
        raise SpecError(
            f"metric {double[0]!r} of the task",
            "`metrics` and `split_metrics` both have it",
            "Give one of them another name: the mean over cases and the score of a split are two numbers",
        )
    return {**task.metrics, **{name: replace(info, yes_or_no=False) for name, info in of_split.items()}}
