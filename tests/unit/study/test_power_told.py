"""What a study says its splits can prove: before it measures anything, and once the first int8 baseline is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import made_up
import numpy as np
import pytest

from edgedeploy.errors import DataError, SpecError
from edgedeploy.evidence.noninferiority import Differences, share_units_wanted, share_upper, units_wanted_at
from edgedeploy.evidence.power import cases_needed, provable_margin, sd_of_group_means
from edgedeploy.evidence.spread import first_float, first_int8, measured_spread
from edgedeploy.interfaces.scores import metrics_of
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.records.draws import SplitDraws
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.spec.study import StudySpec, parse_spec
from edgedeploy.study.clusters import Clusters, check_groups, clusters_of, kept_clusters
from edgedeploy.study.power import PowerTold, lost_share_line, powers_of
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound

FLOAT, INT8 = made_up.variant(), made_up.variant(precision="int8")
ALONE = Clusters(False, {"selection": 28, "confirmation": 40}, {"selection": 28, "confirmation": 40})
PATIENTS = Clusters(True, {"selection": 40, "confirmation": 40}, {"selection": 8, "confirmation": 4})

STUDY = """\
[study]
name = "power"
targets = ["onnxruntime"]
[task]
kind = "synthetic-ultrasound"
[[boards]]
name = "here"
kind = "local"
[space]
width = [1.0]
[[objectives]]
metric = "dice_mean"
[[objectives]]
metric = "latency_ratio"
[budget]
trials = 10
[evidence]
margin = {margin}
"""


def spec_of(margin: str = "0.01") -> StudySpec:
    return parse_spec(STUDY.replace("{margin}", margin), Path("study.toml"))[0]


def metrics(unit: str = "1") -> dict[str, MetricInfo]:
    found = {**made_up.TASK_METRICS, "dice_mean": MetricInfo("maximize", unit, "Dice")}
    return spec_of().metric_table(found)


def pair(sd: float, cases: int = 28, groups: int = 0) -> tuple[Measurement, Measurement]:
    """A float and an int8 baseline whose differences have exactly this spread, and a mean loss of 0.001."""
    rng = np.random.default_rng(3)
    gains = rng.normal(size=cases)
    gains = sd * (gains - gains.mean()) / gains.std(ddof=1) - 0.001
    base = rng.uniform(0.7, 0.9, cases)
    owner = {f"case-{i:02d}": i % groups for i in range(cases)} if groups else {}
    made = [
        made_up.measurement(
            variant,
            per_case={f"case-{i:02d}": {"dice_mean": float(value), "hd95_px": None} for i, value in enumerate(values)},
            groups=owner,
        )
        for variant, values in ((FLOAT, base), (INT8, base + gains))
    ]
    return made[0], made[1]


def test_assumptions_are_called_assumptions() -> None:
    (power,) = powers_of(spec_of(), ALONE, metrics(), [FLOAT])
    assert not power.measured
    bounds = [reach.margins[0.8] for reach in power.reaches if reach.split == "confirmation"]
    assert bounds == [pytest.approx(provable_margin(40, sd)) for sd in (0.02, 0.03, 0.05)]
    first, second, third = power.lines()
    assert "assumed: nothing is measured yet" in first
    assert "the confirmation split (40 cases) bounds a loss by 0.008 / 0.012 / 0.02" in first
    assert second == (
        "the study's margin of 0.01 (Dice mean) needs 27 / 58 / 156 cases at assumed standard deviations of "
        "0.02 / 0.03 / 0.05, and 41 / 89 / 243 if 0.002 is truly lost"
    )
    assert third.startswith("where Dice mean is 0 or 1 in each case")


def test_a_metric_of_yes_or_no_needs_more_and_it_is_told() -> None:
    """As many as the verdict asks for: 149 answers that stay right show that no more than 0.02 are lost, and 148 do not."""
    (power,) = powers_of(spec_of("0.02"), ALONE, metrics(), [FLOAT])
    line = "where Dice mean is 0 or 1 in each case, it needs at least 149 cases, none of them lost"
    assert power.margin_lines()[1] == line and power.lines()[1:] == power.margin_lines()
    for cases, shown in ((148, False), (149, True)):
        gains = np.zeros(cases)
        found = Differences.of_cases(gains, np.zeros(200), yes_or_no=True)
        assert found is not None and (found.strict_lower() >= -0.02) == shown
    (grouped,) = powers_of(spec_of("0.02"), PATIENTS, metrics(), [FLOAT])
    assert "149 groups" in grouped.margin_lines()[1]
    (pixels,) = powers_of(spec_of('{ hd95_px = "1 px" }'), ALONE, metrics(), [FLOAT])
    assert len(pixels.margin_lines()) == 1


def told_of(yes_or_no: bool | None) -> tuple[str, ...]:
    """What ``plan`` and the beginning of a search say of a first objective, with nothing measured."""
    dice = MetricInfo("maximize", "1", "Dice", yes_or_no=yes_or_no)
    table = spec_of().metric_table({**made_up.TASK_METRICS, "dice_mean": dice})
    (power,) = powers_of(spec_of("0.02"), ALONE, table, [FLOAT])
    return power.margin_lines()


def test_a_task_says_whether_its_metric_is_one_of_yes_or_no() -> None:
    """Of a Dice nothing is said of answers that are 0 or 1; of a share of right answers the counts themselves are those of
    the exact bound, and no line has an if."""
    plain, _ = told_of(None)
    (dice,) = told_of(False)
    assert dice == plain and "needs 8 / 16 / 41 cases at" in dice
    (right,) = told_of(True)
    assert "needs 149 / 149 / 149 cases" in right and "by the exact bound while few of them change" in right


def test_tasks_that_ship_say_of_each_metric_whether_it_is_one() -> None:
    ultrasound = metrics_of(SyntheticUltrasound())
    assert {info.yes_or_no for info in ultrasound.values() if info.unit == "1"} == {False}


def test_a_score_of_a_split_is_no_answer_of_a_case() -> None:
    class Task(SyntheticUltrasound):
        split_metrics: ClassVar[Mapping[str, MetricInfo]] = {"auroc": MetricInfo("maximize", "1", "")}

        def score(self, cases: Sequence[Case], outputs: Sequence[Mapping[str, Array]]) -> dict[str, float | None]:
            return {"auroc": None}

    assert metrics_of(Task())["auroc"].yes_or_no is False


def test_a_measured_metric_of_yes_or_no_is_told_by_the_exact_bound() -> None:
    """One of 80 answers changes for the worse: too few for t, so what the verdict will ask for is counted with."""
    gains = np.zeros(80)
    gains[7] = -1.0
    made = [
        made_up.measurement(
            variant, per_case={f"case-{i:02d}": {"dice_mean": value, "hd95_px": None} for i, value in enumerate(values)}
        )
        for variant, values in ((FLOAT, np.ones(80)), (INT8, np.ones(80) + gains))
    ]
    many = Clusters(False, {"selection": 80, "confirmation": 400}, {"selection": 80, "confirmation": 400})
    (power,) = powers_of(spec_of("0.03"), many, metrics(), [FLOAT], made)
    sd = float(gains.std(ddof=1))
    selection, confirmation = power.reaches
    assert selection.spread.yes_or_no and selection.spread.sd == pytest.approx(sd)
    assert selection.needed == max(cases_needed(0.03, sd) or 0, share_units_wanted(0, 1, 0.03) or 0)
    assert selection.needed_with_loss == units_wanted_at(1 / 80, 0.03)
    assert selection.margins[0.8] == pytest.approx(max(provable_margin(80, sd) or 0, share_upper(0, 80)))
    assert confirmation.margins[0.8] == pytest.approx(max(provable_margin(400, sd) or 0, share_upper(0, 400)))
    (line,) = power.margin_lines()
    assert "0 or 1 in each case, so by the exact bound" in line and f"needs {selection.needed} cases" in line
    (_, told) = power.lines()
    assert told == line, "a plan and a running search say the same"


@pytest.mark.parametrize(("changed", "exact"), [(0.004, True), (0.2, False)])
def test_cases_of_yes_or_no_keep_what_the_verdict_asks_of_them(changed: float, exact: bool) -> None:
    """A split of as many cases as needed, of which as many change as expected, passes; with fewer it does not."""
    sd, margin = math.sqrt(changed), 0.02
    found = cases_needed(margin, sd, yes_or_no=True)
    assert found is not None and (found > (cases_needed(margin, sd) or 0)) is exact
    assert (provable_margin(found, sd, yes_or_no=True) or 1) <= margin
    assert (provable_margin(found - 1, sd, yes_or_no=True) or 0) > margin


def test_the_first_int8_baseline_replaces_them() -> None:
    (power,) = powers_of(spec_of(), ALONE, metrics(), [FLOAT], pair(0.04))
    assert power.measured
    (selection, confirmation) = power.reaches
    assert selection.spread.sd == pytest.approx(0.04)
    assert selection.loss == pytest.approx(0.001)
    assert confirmation.margins[0.9] == pytest.approx(provable_margin(40, 0.04, power=0.9))
    assert selection.needed == cases_needed(0.01, 0.04)
    assert selection.needed_with_loss == cases_needed(0.01, 0.04, true_loss=selection.loss)
    assert "with the sd of onnxruntime int8 against the baseline (0.04 on 28 cases)" in power.lines()[0]
    assert f"needs {selection.needed} cases at the standard deviation seen, 0.04, and" in power.lines()[1]


def test_a_metric_of_some_cases_has_fewer_of_them() -> None:
    """A sensitivity is of positives: here of every second case."""
    half = []
    for item in pair(0.04):
        kept = {case: row if int(case[-2:]) % 2 else {"dice_mean": None} for case, row in item.cases.items()}
        half.append(replace(item, cases=kept))
    found = measured_spread(half[1], half[0], "dice_mean", sign=1)
    assert found is not None and (found.cases, found.defined) == (14, 0.5)
    (power,) = powers_of(spec_of(), ALONE, metrics(), [FLOAT], half)
    assert power.reaches[0].margins[0.8] == pytest.approx(provable_margin(14, found.sd))
    assert power.reaches[1].margins[0.8] == pytest.approx(provable_margin(20, found.sd))
    assert power.reaches[0].needed == 2 * cases_needed(0.01, found.sd)


def test_of_several_margins_each_is_answered() -> None:
    spec = spec_of('{ dice_mean = 0.02, hd95_px = "1 px" }')
    dice, distance = powers_of(spec, ALONE, metrics(), [FLOAT])
    assert (dice.margin, distance.margin) == (0.02, 1.0)
    assert distance.in_sds and distance.reaches[0].needed is None
    assert "bounds a loss by 0.48 sd" in distance.lines()[0]  # nothing is assumed of pixels


def test_without_a_margin_it_says_so() -> None:
    text = STUDY[: STUDY.index("[evidence]")]
    (power,) = powers_of(parse_spec(text, Path("study.toml"))[0], ALONE, metrics(), [FLOAT])
    assert power.margin is None
    assert len(power.lines()) == 1  # that there is no margin is a note of the study's own
    assert "[evidence] margin says nothing of Dice mean" in power.margin_lines()[0]


def test_a_share_that_may_be_lost_needs_cases_too() -> None:
    spec = parse_spec(STUDY.replace("{margin}", "0.01\nlost_case = 0.1\nlost_share = 0.05"), Path("study.toml"))[0]
    assert lost_share_line(spec, ALONE, metrics()) == (
        "lost_share of 5% needs 59 cases of which none is lost; "
        "there are: selection 28, confirmation 40 (NOT enough: nothing can be shown)"
    )
    assert "59 groups of which none is lost; there are: selection 8, confirmation 4 (NOT enough" in lost_share_line(
        spec, PATIENTS, metrics()
    )
    assert lost_share_line(spec_of(), ALONE, metrics()) == ""
    assert PowerTold(spec, Frames(), metrics(), [FLOAT]).at_first([])[-1].startswith("lost_share")


def test_cases_of_groups_count_as_groups() -> None:
    (power,) = powers_of(spec_of(), PATIENTS, metrics(), [FLOAT])
    selection = power.reaches[0]
    assert (selection.cases, selection.groups, selection.spread.icc) == (40, 8, 0.3)
    assert selection.margins[0.8] == pytest.approx(provable_margin(8, sd_of_group_means(0.02, 5, 0.3)))
    assert selection.needed is not None and selection.needed % 5 == 0
    assert "(40 cases in 4 groups) bounds no loss: fewer than 5 groups" in power.lines()[0]
    assert power.reaches[-1].margin_of_all is None


def test_the_correlation_in_groups_is_measured() -> None:
    baseline, int8 = pair(0.03, cases=40, groups=8)
    found = measured_spread(int8, baseline, "dice_mean", sign=1)
    assert found is not None and found.icc is not None and found.icc < 0.3


def test_more_compared_variants_prove_less() -> None:
    (power,) = powers_of(spec_of(), ALONE, metrics(), [FLOAT])
    for reach in power.reaches:
        assert reach.margin_of_all == pytest.approx(provable_margin(reach.cases, reach.spread.sd, level=0.995))


def test_what_is_no_int8_baseline_says_nothing() -> None:
    baseline, int8 = pair(0.03)
    narrow = made_up.measurement(made_up.variant(precision="int8", width=0.5))
    drifted = made_up.measurement(INT8, cause="it was hot")
    other = made_up.measurement(made_up.variant("openvino", "int8"), created_utc="2030-01-01T00:00:00+00:00")
    assert first_int8([narrow, drifted, baseline], [FLOAT]) is None
    assert first_int8([other, narrow, int8], [FLOAT]) is int8
    assert first_float([narrow, int8, baseline], [FLOAT]) is baseline


def test_a_baseline_with_other_threads_is_one_all_the_same() -> None:
    one_thread = made_up.measurement(made_up.variant(threads=1))
    assert first_float([one_thread], [FLOAT]) is one_thread
    assert first_float([one_thread, made_up.measurement(FLOAT)], [FLOAT]).digest == FLOAT.digest


def test_equal_answers_say_nothing_of_others() -> None:
    baseline, _ = pair(0.03)
    assert measured_spread(baseline, baseline, "dice_mean", sign=1) is None


class Frames(SyntheticUltrasound):
    """Five frames of each patient."""

    def group_of(self, case: Case) -> str:
        return f"patient {case.split} {int(case.id.rpartition('-')[2]) // 5}"


class Unknown(SyntheticUltrasound):
    groups_known = False


def test_a_run_tells_once_and_again_with_the_measured_spread() -> None:
    told = PowerTold(spec_of(), Unknown(), metrics(), [FLOAT])
    lines = told.at_first([])
    assert len(lines) == 4
    assert lines[-1].startswith("clusters unknown")
    baseline, int8 = pair(0.04)
    assert told.now(FLOAT, lambda: [baseline]) == ()
    again = told.now(INT8, lambda: [baseline, int8])
    assert len(again) == 2 and "0.04 on 28 cases" in again[0]
    assert told.now(INT8, lambda: [baseline, int8]) == ()


def test_a_resumed_run_begins_with_the_measured_spread() -> None:
    told = PowerTold(spec_of(), Frames(), metrics(), [FLOAT])
    lines = told.at_first(pair(0.04))
    assert "0.04 on 28 cases" in lines[0] and not any("clusters unknown" in line for line in lines)
    assert told.now(INT8, lambda: list(pair(0.04))) == ()


def test_clusters_are_counted_and_kept() -> None:
    found = clusters_of(Frames())
    assert found.named and found.groups["selection"] == -(-found.cases["selection"] // 5)
    assert kept_clusters({"clusters": found.as_json()}) == found
    assert not clusters_of(Unknown()).named
    assert clusters_of(SyntheticUltrasound()).named  # each case is drawn by itself
    assert kept_clusters({}) is None


class Shared(SyntheticUltrasound):
    """The first case of each of these splits is of one patient."""

    def __init__(self, *splits: str) -> None:
        super().__init__()
        self.splits = splits

    def group_of(self, case: Case) -> str:
        return "Jane Doe" if case.split in self.splits and case.id.endswith("-0000") else case.id


@pytest.mark.parametrize("splits", [("train", "selection"), ("selection", "confirmation"), ("train", "confirmation")])
def test_a_patient_on_two_sides_is_refused_without_the_name(splits: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=rf"'{splits[0]}-0000' .*'{splits[1]}-0000' .* are of one group") as told:
        check_groups(Shared(*splits))
    assert "Jane" not in str(told.value)


def test_what_is_trained_on_may_calibrate() -> None:
    check_groups(Shared("train", "calibration"))
    check_groups(Frames())
    check_groups(Unknown())


def test_a_group_of_the_users_that_fails_is_told() -> None:
    class Broken(SyntheticUltrasound):
        def group_of(self, case: Case) -> str:
            return {}[case.id]  # type: ignore[no-any-return]

    with pytest.raises(SpecError, match=r"group_of\(\) of split .*KeyError"):
        clusters_of(Broken())


@pytest.mark.parametrize("groups", [0, 8])
def test_the_spread_of_a_metric_of_the_split_is_that_of_its_draws(groups: int) -> None:
    owner = {f"case-{i:02d}": i % groups for i in range(40)} if groups else {}
    rng = np.random.default_rng(5)
    base = rng.normal(0.9, 0.02, 1000)
    pair_of_draws = [base, base - rng.normal(0.004, 0.01, 1000)]
    made = [
        made_up.measurement(variant, groups=owner, draws={"auroc": SplitDraws.of("same", values)})
        for variant, values in zip((FLOAT, INT8), pair_of_draws, strict=True)
    ]
    made = [
        replace(item, metrics={**item.metrics, "auroc": value}) for item, value in zip(made, (0.9, 0.896), strict=True)
    ]
    found = measured_spread(made[1], made[0], "auroc", sign=1)
    assert found is not None and found.loss == pytest.approx(0.004)
    units = groups or len(made[0].cases)
    assert found.sd / np.sqrt(units) == pytest.approx(0.01, rel=0.05)
    assert found.icc == (1.0 if groups else None)  # a drawn group counts as one
