"""Metrics of a whole split: their draws when measured, and what a front concludes from the stored ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import made_up
import numpy as np
import pytest

from edgedeploy.errors import MeasurementError, SpecError
from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.front import build_front
from edgedeploy.evidence.reasons import what_is_missing
from edgedeploy.evidence.split import numbered, split_draws, split_score
from edgedeploy.interfaces.scores import Grouped, ScoresSplit, metrics_of
from edgedeploy.interfaces.task import Case
from edgedeploy.records.draws import SplitDraws
from edgedeploy.records.goals import Constraint, Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.study.scores import score

AUROC = Objective("auroc", "maximize")
INFO = {"auroc": MetricInfo("maximize", "1", "area under the ROC curve")}


def auroc(truth: Sequence[int], values: Sequence[float]) -> float:
    """How often a case of the one class has more than one of the other. Each draw of each test asks for it."""
    of, found = np.asarray(truth), np.asarray(values)
    apart = found[of == 1][:, None] - found[of == 0]
    return float(np.mean(apart > 0) + np.mean(apart == 0) / 2)


class Reader:
    """Answers one number for each case; the truth is whether the case's number is odd."""

    name = "reader"
    metrics: Mapping[str, MetricInfo] = {"right": MetricInfo("maximize", "1", "right answers")}
    split_metrics: Mapping[str, MetricInfo] = INFO
    split_resamples = 200

    def cases(self, count: int = 60) -> list[Case]:
        return [Case(f"c{number:03d}", "selection") for number in range(count)]

    def truth(self, case: Case) -> int:
        return int(case.id[1:]) % 2

    def evaluate(self, outputs: Mapping[str, Any], case: Case) -> dict[str, float | None]:
        return {"right": float((outputs["p"][0] > 0.5) == self.truth(case))}

    def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
        truth = [self.truth(case) for case in cases]
        if len(set(truth)) < 2:
            return {"auroc": None}
        return {"auroc": auroc(truth, [found["p"][0] for found in outputs])}


class Patients(Reader):
    """Ten images of one patient follow one another."""

    def group_of(self, case: Case) -> str:
        return f"patient {int(case.id[1:]) // 10}"


def answers(task: Reader, noise: float, seed: int = 0, count: int = 60) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"p": np.array([task.truth(case) + rng.normal(0, noise)])} for case in task.cases(count)]


def measured(task: Reader, noise: float, count: int = 60, seed: int = 0, **of: Any) -> Measurement:
    found = score(task, task.cases(count), answers(task, noise, seed, count))  # type: ignore[arg-type]
    plain = made_up.measurement(made_up.variant(**of), per_case=found.cases)
    return made_up.measurement(
        made_up.variant(**of),
        per_case=found.cases,
        metrics={**plain.metrics, **found.metrics},
        groups=found.groups,
        draws=found.draws,
    )


def test_protocols_are_known_by_their_members() -> None:
    assert isinstance(Reader(), ScoresSplit)
    assert not isinstance(Reader(), Grouped)
    assert isinstance(Patients(), Grouped)
    assert list(metrics_of(Reader())) == ["right", "auroc"]  # type: ignore[arg-type]


def test_one_name_for_a_case_and_the_split_is_refused() -> None:
    task = Reader()
    task.metrics = INFO
    with pytest.raises(SpecError, match="`metrics` and `split_metrics` both have it"):
        metrics_of(task)  # type: ignore[arg-type]


def test_the_score_is_that_of_the_whole_split() -> None:
    from sklearn.metrics import roc_auc_score

    task = Reader()
    outputs = answers(task, 0.8)
    found = score(task, task.cases(), outputs)  # type: ignore[arg-type]
    expected = roc_auc_score([number % 2 for number in range(60)], [row["p"][0] for row in outputs])
    assert found.metrics["auroc"] == pytest.approx(expected)
    assert found.metrics["right"] == np.mean([value["right"] for value in found.cases.values()])
    assert found.draws["auroc"].values.shape == (200,)
    assert "right" not in found.draws


def test_draws_agree_with_a_bootstrap_of_ones_own() -> None:
    task = Reader()
    outputs = answers(task, 0.8)
    draws = score(task, task.cases(), outputs).draws["auroc"].values  # type: ignore[arg-type]
    rng = np.random.default_rng(5)
    truth, values = np.arange(60) % 2, np.array([row["p"][0] for row in outputs])
    own = [auroc(truth[chosen], values[chosen]) for chosen in rng.integers(0, 60, (2000, 60))]
    assert draws.std() == pytest.approx(np.std(own), rel=0.2)
    assert draws.mean() == pytest.approx(np.mean(own), abs=0.01)


def test_variants_see_the_same_draws_and_are_compared_in_pairs() -> None:
    """Two readers of one skill on the same cases: the difference is far surer than either number."""
    task = Reader()
    ours, theirs = measured(task, 0.8), measured(task, 0.8, target="openvino")
    assert ours.draws["auroc"].drawn == theirs.draws["auroc"].drawn
    assert Resampler(0).compare(ours, theirs, AUROC).lower == 0
    worse = measured(task, 1.0, target="openvino")
    compared = Resampler(0).compare(worse, ours, AUROC)
    assert compared.method == "paired draws"
    assert compared.units == 60
    assert compared.gain == pytest.approx(worse.metrics["auroc"] - ours.metrics["auroc"])
    assert compared.lower is not None and compared.upper is not None
    assert compared.lower < compared.gain < compared.upper < 0
    alone = Resampler(0).estimate(ours, "auroc")
    assert alone.low is not None and alone.high is not None
    assert compared.upper - compared.lower < (alone.high - alone.low) / 2


def test_the_order_of_the_cases_does_not_change_the_draws() -> None:
    task, outputs = Reader(), answers(Reader(), 0.8)
    there = score(task, task.cases(), outputs)  # type: ignore[arg-type]
    back = score(task, task.cases()[::-1], outputs[::-1])  # type: ignore[arg-type]
    assert there.draws == back.draws


def test_other_cases_are_no_pairs() -> None:
    ours, theirs = measured(Reader(), 0.8), measured(Reader(), 0.8, count=50, target="openvino")
    compared = Resampler(0).compare(ours, theirs, AUROC)
    assert (compared.method, compared.lower) == ("too few", None)


def test_a_split_of_four_cases_has_a_score_and_no_bound() -> None:
    ours, theirs = measured(Reader(), 0.8, count=4), measured(Reader(), 0.8, count=4, target="openvino")
    assert ours.draws == {}
    assert Resampler(0).estimate(ours, "auroc").low is None
    compared = Resampler(0).compare(ours, theirs, AUROC)
    assert (compared.method, compared.units) == ("too few", 4)


def test_the_pick_says_why_no_loss_is_bounded() -> None:
    class Rare(Reader):
        def truth(self, case: Case) -> int:
            return int(case.id == "c000")

    items = [measured(Rare(), 0.3), measured(Rare(), 0.4, target="openvino")]
    report = build_front(items, [AUROC], baseline_digests=[items[0].digest], margin=0.0, metrics=INFO)
    assert report.pick is None and report.decision.nearest == items[1].digest
    text = what_is_missing(report.decision.judged[items[1].digest], report.metrics)
    assert text.startswith(
        "There is no verdict on it: draws of its 60 cases were not kept, or often leave AUROC undefined"
    )


def test_draws_of_one_class_are_left_out_and_too_many_of_them_leave_no_bound() -> None:
    class Rare(Reader):
        positives = 1

        def truth(self, case: Case) -> int:
            return int(int(case.id[1:]) < self.positives)

    rare = measured(Rare(), 0.3)
    undefined = np.isnan(rare.draws["auroc"].values).mean()
    assert 0.25 < undefined < 0.5  # (1 - 1/60)^60 is 0.365
    assert rare.metrics["auroc"] > 0.5
    assert Resampler(0).estimate(rare, "auroc").low is None
    other = measured(Rare(), 0.3, seed=2, target="openvino")
    assert Resampler(0).compare(rare, other, AUROC).method == "too few"
    Rare.positives = 3
    some = measured(Rare(), 0.3)
    assert 0 < np.isnan(some.draws["auroc"].values).mean() < 0.1
    assert Resampler(0).estimate(some, "auroc").low is not None


def test_a_split_of_one_class_says_that_it_is_undefined() -> None:
    class One(Reader):
        def truth(self, case: Case) -> int:
            return 1

    task = One()
    found = score(task, task.cases(), answers(task, 0.1))  # type: ignore[arg-type]
    assert "auroc" not in found.metrics
    assert found.missing["auroc"] == "undefined for the split"
    assert found.draws == {}


def test_a_score_that_names_another_metric_says_so() -> None:
    assert split_score(lambda places: {"f1": 1.0}, ["auroc"], 9)[1] == {"auroc": "the task's score() does not give it"}


def test_nan_is_no_score() -> None:
    with pytest.raises(MeasurementError, match="None stands for undefined"):
        split_score(lambda places: {"auroc": float("nan")}, ["auroc"], 9)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"auc": 0.5}, r"score\(\) of 60 cases: it returned 'auc', which `split_metrics` does not name.*auroc"),
        ({}, "it lacks auroc"),
        (0.5, "it returned a float"),
        ({"auroc": "high"}, "auroc is a str"),
        ({"auroc": float("nan")}, "auroc is nan.*Return None"),
    ],
)
def test_what_score_returns_is_held_against_the_metrics(returned: Any, message: str) -> None:
    class Odd(Reader):
        def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Any]]) -> Any:
            return returned

    task = Odd()
    with pytest.raises(SpecError, match=message):
        score(task, task.cases(), answers(task, 0.1))  # type: ignore[arg-type]


def test_too_few_draws_are_refused() -> None:
    task = Reader()
    task.split_resamples = 10
    with pytest.raises(SpecError, match="at least 100"):
        score(task, task.cases(), answers(task, 0.1))  # type: ignore[arg-type]


def test_whole_patients_are_drawn_and_no_name_of_one_is_kept() -> None:
    seen: list[list[int]] = []

    def record(places: Sequence[int]) -> dict[str, float | None]:
        seen.append(sorted(places))
        return {"m": 0.5}

    ids = [case.id for case in Patients().cases()]
    groups = numbered({case.id: Patients().group_of(case) for case in Patients().cases()})
    assert set(groups.values()) == {0, 1, 2, 3, 4, 5}
    split_draws(record, ["m"], ids, groups, 100)
    assert len(seen) == 100
    for places in seen:
        counts = np.bincount(places, minlength=60).reshape(6, 10)
        assert (counts == counts[:, :1]).all()
        assert counts[:, 0].sum() == 6


def test_groups_widen_the_bounds_of_means_over_cases_too() -> None:
    """All ten images of a patient answer alike: ten times fewer independent observations."""
    values = {f"c{i:03d}": {"dice_mean": float(i // 10 % 3) / 4, "hd95_px": 1.0} for i in range(120)}
    groups = {case: int(case[1:]) // 10 for case in values}
    alone = Resampler(0).estimate(made_up.measurement(per_case=values), "dice_mean")
    grouped = Resampler(0).estimate(made_up.measurement(per_case=values, groups=groups), "dice_mean")
    assert alone.low is not None and alone.high is not None and grouped.low is not None and grouped.high is not None
    assert alone.value == grouped.value
    assert grouped.high - grouped.low == pytest.approx((alone.high - alone.low) * np.sqrt(10), rel=0.15)
    few = made_up.measurement(per_case=values, groups={case: number % 4 for case, number in groups.items()})
    assert Resampler(0).estimate(few, "dice_mean").low is None


def test_a_front_uses_the_metric_as_objective_limit_and_pick() -> None:
    task = Reader()
    base = measured(task, 0.5)
    lossy = measured(task, 0.5, seed=7, target="openvino", precision="int8")
    lossy = dataclasses.replace(lossy, metrics={**lossy.metrics, "size_bytes": 1000.0})
    poor = measured(task, 3.0, seed=3, target="openvino", width=0.5)
    report = build_front(
        [base, lossy, poor],
        [AUROC, Objective("size_bytes", "minimize")],
        [Constraint("auroc", at_least=0.8)],
        baseline_digests=[base.digest],
        margin=0.2,
        metrics=INFO,
    )
    by_digest = {row.digest: row for row in report.rows}
    assert by_digest[poor.digest].status == "infeasible"
    assert report.pick is not None
    assert report.pick.digest == lossy.digest and report.pick.accuracy.method == "paired draws"
    assert report.pick.judged.lost is None, "no case has a share in an AUROC"
    assert by_digest[base.digest].estimates["auroc"].low is not None


def test_draws_survive_the_file_and_files_without_them_are_read() -> None:
    found = measured(Patients(), 0.8)
    data = json.loads(json.dumps(found.as_json()))
    again = Measurement.from_json(data)
    assert again.draws == found.draws
    assert again.groups == found.groups
    assert len(data["draws"]["auroc"]["packed"]) < 200 * 6
    del data["draws"], data["groups"]
    older = Measurement.from_json(data)
    assert older.draws == {}
    assert older.groups == {}


@pytest.mark.parametrize("packed", ["no base64!", "AAA="])
def test_damaged_draws_are_no_draws(packed: str) -> None:
    with pytest.raises(ValueError, match="draws of a split are"):
        SplitDraws("x", packed)


class Careless(Reader):
    """Whose scores depend on more than the outputs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.rng = np.random.default_rng(0)

    def evaluate(self, outputs: Mapping[str, Any], case: Case) -> dict[str, float | None]:
        if self.kind == "changes":
            outputs["p"][...] = 0
        return {"right": float(self.rng.random()) if self.kind == "evaluate" else 1.0}

    def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
        return {"auroc": float(self.rng.random()) if self.kind == "score" else 0.5}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("evaluate", r"evaluate\(\) of case .*right is 0\.\d+ and then 0\.\d+ for the same outputs"),
        ("changes", r"evaluate\(\) of case .*it changed the output 'p'"),
        ("score", r"score\(\) of 60 cases: auroc is 0\.\d+ and then 0\.\d+ for the same outputs"),
    ],
)
def test_scores_that_depend_on_more_than_the_outputs_are_refused(kind: str, message: str) -> None:
    task = Careless(kind)
    with pytest.raises(SpecError, match=message):
        score(task, task.cases(), answers(Reader(), 0.5))  # type: ignore[arg-type]
    assert score(Careless(""), task.cases(), answers(Reader(), 0.5)).metrics == {"right": 1.0, "auroc": 0.5}  # type: ignore[arg-type]


def test_a_case_without_a_group_leaves_nothing_to_bound() -> None:
    """Nobody says which cases are independent."""
    values = {f"c{i:03d}": {"dice_mean": 0.8, "hd95_px": 1.0} for i in range(40)}
    groups = {case: int(case[1:]) // 4 for case in values}
    some = {case: number for case, number in groups.items() if case != "c007"}
    goal = Objective("dice_mean", "maximize")
    for known, bounded in ((groups, True), (some, False)):
        pair = [made_up.measurement(per_case=values, groups=known) for _ in range(2)]
        assert (Resampler(0).differences(*pair, goal) is not None) is bounded
