"""Which variants are on the front, why the others are not, and which one to ship."""

from __future__ import annotations

import dataclasses
import json
import random

import made_up
import pytest

from edgedeploy.errors import SpecError
from edgedeploy.evidence.front import Front, Row, build_front
from edgedeploy.evidence.pareto import Candidate, dominates, explain_infeasible, non_dominated, shortfalls
from edgedeploy.records.goals import Constraint, Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS

DICE = Objective("dice_mean", "maximize")
RATIO = Objective("latency_ratio", "minimize")
SIZE = Objective("size_bytes", "minimize")
EFFECTS = {"dice_mean": 0.005, "latency_ratio": 0.02}
BASE = made_up.variant()


def candidate(name: str, dice: float, ratio: float, **more: float) -> Candidate:
    return Candidate(name, "emulated", {"dice_mean": dice, "latency_ratio": ratio, **more})


def names(found: tuple[Candidate, ...]) -> str:
    return "".join(item.digest for item in found)


class TestPure:
    def test_trade_offs_stay_and_beaten_ones_go(self) -> None:
        given = [candidate("a", 0.9, 1.0), candidate("b", 0.8, 0.5), candidate("c", 0.79, 0.6)]
        assert names(non_dominated(given, [DICE, RATIO])) == "ab"

    def test_equals_are_all_members(self) -> None:
        given = [candidate("a", 0.9, 1.0), candidate("b", 0.9, 1.0), candidate("c", 0.9, 1.1)]
        assert names(non_dominated(given, [DICE, RATIO])) == "ab"

    def test_one_objective_keeps_the_best_only(self) -> None:
        given = [candidate("a", 0.9, 1.0), candidate("b", 0.8, 0.5)]
        assert names(non_dominated(given, [DICE])) == "a"
        assert names(non_dominated(given, [RATIO])) == "b"

    def test_a_third_objective_can_save_a_variant(self) -> None:
        given = [candidate("a", 0.9, 0.5, size_bytes=10), candidate("b", 0.8, 0.6, size_bytes=5)]
        assert names(non_dominated(given, [DICE, RATIO])) == "a"
        assert names(non_dominated(given, [DICE, RATIO, SIZE])) == "ab"

    def test_members_agree_with_the_definition_on_random_points(self) -> None:
        rng = random.Random(3)
        given = [candidate(str(i), rng.randint(0, 9), rng.randint(0, 9)) for i in range(60)]
        found = non_dominated(given, [DICE, RATIO])
        for item in given:
            beaten = any(
                other.values["dice_mean"] >= item.values["dice_mean"]
                and other.values["latency_ratio"] <= item.values["latency_ratio"]
                and other.values != item.values
                for other in given
            )
            assert (item in found) != beaten

    def test_provenances_never_meet(self) -> None:
        real = Candidate("a", "measured", {"dice_mean": 0.9})
        guess = Candidate("b", "predicted", {"dice_mean": 0.8})
        for compare in (
            lambda: dominates(real, guess, [DICE]),
            lambda: non_dominated([real, guess], [DICE]),
            lambda: explain_infeasible([real, guess], []),
        ):
            with pytest.raises(SpecError, match="measured and predicted"):
                compare()

    def test_a_margin_tightens_the_limit(self) -> None:
        limit = Constraint("latency_p50_ns", at_most=20e6, margin=1e6)
        assert shortfalls({"latency_p50_ns": 19e6}, [limit]) == ()
        (missed,) = shortfalls({"latency_p50_ns": 19.5e6}, [limit])
        assert missed.by == pytest.approx(0.5e6)
        floor = Constraint("dice_mean", at_least=0.75, margin=0.0625)
        assert shortfalls({"dice_mean": 0.8125}, [floor]) == ()
        assert shortfalls({"dice_mean": 0.80}, [floor])[0].by == pytest.approx(0.0125)

    def test_a_missing_metric_meets_no_limit(self) -> None:
        (missed,) = shortfalls({}, [Constraint("energy_j", at_most=1.0)])
        assert missed.value is None and "no value" in missed.text("J")

    @pytest.mark.parametrize("limits", [{}, {"at_most": 1.0, "at_least": 0.0}, {"at_most": 1.0, "margin": -1.0}])
    def test_a_limit_is_one_number(self, limits: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="constraint on x"):
            Constraint("x", **limits)


class TestImpossible:
    LIMITS = (Constraint("latency_p50_ns", at_most=2e6), Constraint("dice_mean", at_least=0.8))

    def test_the_limit_that_blocks_is_named_with_what_would_have_to_give(self) -> None:
        given = [
            Candidate("slow", "emulated", {"latency_p50_ns": 9e6, "dice_mean": 0.9}),
            Candidate("near", "emulated", {"latency_p50_ns": 2.3e6, "dice_mean": 0.85}),
        ]
        found = explain_infeasible(given, self.LIMITS)
        assert found is not None
        assert [item.constraint.metric for item in found.blocking] == ["latency_p50_ns"]
        assert [miss.digest for miss in found.nearest] == ["near", "slow"]
        text = "\n".join(found.lines({**made_up.TASK_METRICS, **BOARD_METRICS}, {"near": "Near one"}))
        assert "None of 2 variants meets latency_p50_ns at most 2 ms: the best reached is 2.3 ms." in text
        assert "Near miss Near one" in text
        assert "with latency_p50_ns at most 2.3 ms, the nearest miss would do" in text

    def test_limits_that_exclude_each_other_are_told_apart_from_one_that_blocks(self) -> None:
        given = [
            Candidate("a", "emulated", {"latency_p50_ns": 9e6, "dice_mean": 0.9}),
            Candidate("b", "emulated", {"latency_p50_ns": 1e6, "dice_mean": 0.7}),
        ]
        found = explain_infeasible(given, self.LIMITS)
        assert found is not None and found.blocking == ()
        assert "Each limit is met by some variant" in found.lines({}, {})[0]

    def test_what_would_have_to_give_counts_the_margin(self) -> None:
        limit = Constraint("dice_mean", at_least=0.8, margin=0.05)
        values = {"dice_mean": 0.81}
        found = explain_infeasible([Candidate("a", "emulated", values)], [limit])
        assert found is not None
        assert "dice_mean at least 0.760" in found.lines(made_up.TASK_METRICS, {})[-1]
        relaxed = dataclasses.replace(limit, at_least=0.76)
        assert shortfalls(values, [relaxed]) == ()

    def test_the_limit_that_would_do_is_one_that_the_nearest_miss_meets(self) -> None:
        limits = (Constraint("latency_p50_ns", at_most=2e6), Constraint("dice_mean", at_least=0.95))
        found = explain_infeasible(
            [Candidate("a", "emulated", {"latency_p50_ns": 2.304e6, "dice_mean": 0.8459})], limits
        )
        assert found is not None
        text = found.lines({**made_up.TASK_METRICS, **BOARD_METRICS}, {})[-1]
        assert "latency_p50_ns at most 2.31 ms and dice_mean at least 0.845, the nearest miss would do" in text

    def test_nothing_is_impossible_when_one_variant_will_do(self) -> None:
        good = Candidate("a", "emulated", {"latency_p50_ns": 1e6, "dice_mean": 0.9})
        assert explain_infeasible([good], self.LIMITS) is None


def study() -> list[Measurement]:
    """Baseline 0.85 at ratio 1; a good int8; a fast lossy one; a beaten one; one a hair behind the good int8."""
    return [
        made_up.measurement(BASE, dice=0.85, latency_ms=6.0, seed=1),
        made_up.measurement(made_up.variant(precision="int8"), dice=0.848, latency_ms=2.4, seed=2),
        made_up.measurement(made_up.variant(precision="int8", width=0.25), dice=0.79, latency_ms=0.9, seed=3),
        made_up.measurement(made_up.variant(width=0.5), dice=0.80, latency_ms=4.0, seed=4),
        made_up.measurement(made_up.variant("openvino", "int8"), dice=0.847, latency_ms=2.46, seed=5),
    ]


def front(items: list[Measurement], objectives: tuple[Objective, ...] = (DICE, RATIO), **kwargs: object) -> Front:
    settings: dict[str, object] = {
        "baseline_digests": [BASE.digest],
        "seed": 7,
        "min_effect": EFFECTS,
        "margin": 0.01,
        "metrics": made_up.TASK_METRICS,
        **kwargs,
    }
    return build_front(items, objectives, **settings)  # type: ignore[arg-type]


def row(report: Front, item: Measurement) -> Row:
    found = report.row(item.digest)
    assert found is not None
    return found


class TestReport:
    def test_every_variant_has_its_place_and_its_reason(self) -> None:
        items = study()
        report = front(items)
        assert [found.digest for found in report.members] == [item.digest for item in items[:3]]
        beaten, hair = row(report, items[3]), row(report, items[4])
        assert (beaten.status, beaten.dominated_by, beaten.confidence) == ("dominated", items[1].digest, "confirmed")
        assert hair.status == hair.confidence == "indistinguishable" and hair.dominated_by == items[1].digest

    def test_members_carry_intervals_and_their_latency_against_the_baseline(self) -> None:
        for member in front(study()).members:
            for metric in ("dice_mean", "latency_ratio", "latency_p99_ns"):
                estimate = member.estimates[metric]
                assert estimate.low is not None and estimate.high is not None
                assert estimate.low <= estimate.value <= estimate.high

    def test_stored_measurements_in_any_order_give_the_same_bytes(self) -> None:
        items = study()
        stored = [Measurement.from_json(json.loads(json.dumps(item.as_json()))) for item in reversed(items)]
        first, second = (json.dumps(front(given).as_json(), sort_keys=True) for given in (items, stored))
        assert first == second

    def test_a_limit_excludes_and_says_by_how_much(self) -> None:
        items = study()
        report = front(items, constraints=[Constraint("latency_p50_ns", at_most=3e6)])
        slow = row(report, items[0])
        assert slow.status == "infeasible" and slow.baseline
        assert slow.shortfalls[0].by == pytest.approx(3e6, rel=0.02)
        assert items[0].digest not in [member.digest for member in report.members]

    def test_when_nothing_meets_the_limits_the_front_is_empty_and_explained(self) -> None:
        report = front(study(), constraints=[Constraint("dice_mean", at_least=0.99)])
        assert report.members == () and report.pick is None
        assert "None of 5 variants meets dice_mean at least 0.990" in report.explanation()[0]
        assert len(report.excluded) == 5

    def test_invalid_runs_are_named_and_never_scored(self) -> None:
        perfect = made_up.measurement(made_up.variant(width=0.3), dice=0.99, latency_ms=0.1, cause="it drifted")
        report = front([*study(), perfect])
        assert report.row(perfect.digest) is None
        assert [item.cause for item in report.invalid] == ["it drifted"]

    def test_a_variant_without_an_objective_is_never_on_the_front(self) -> None:
        items = study()
        items[1] = made_up.measurement(made_up.variant(precision="int8"), dice=0.99, without=["latency_ratio"])
        found = row(front(items), items[1])
        assert found.status == "incomplete" and found.missing["latency_ratio"] == "test"

    def test_a_member_ahead_by_less_than_matters_says_who_overshadows_it(self) -> None:
        items = [
            made_up.measurement(BASE, dice=0.8502, latency_ms=6.0, seed=1),
            made_up.measurement(made_up.variant(precision="int8"), dice=0.85, latency_ms=2.4, seed=2),
        ]
        report = front(items)
        assert row(report, items[0]).status == "front"
        assert row(report, items[0]).dominated_by == items[1].digest
        assert row(report, items[1]).dominated_by is None

    def test_no_measurements_give_an_empty_report(self) -> None:
        report = front([])
        assert report.members == () and report.pick is None and report.provenance is None
        assert "No variant has a valid measurement" in report.explanation()[0]

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"provenance": "measured"}, "provenances"),
            ({"split": "confirmation"}, "splits"),
            ({"board": made_up.board(identity="f" * 16)}, "machines"),
            ({"board": made_up.board(isa=("avx2",))}, "processors: CPU flags without avx512_vnni"),
        ],
    )
    def test_mixtures_are_refused(self, changes: dict[str, object], word: str) -> None:
        other = made_up.measurement(made_up.variant(width=0.9), **changes)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=word):
            front([*study(), other])

    def test_variants_that_were_scored_on_other_cases_are_refused_and_named(self) -> None:
        found = study()
        fewer = {name: values for name, values in found[0].cases.items() if name != "case-07"}
        later = {"created_utc": "2026-01-02T00:00:00+00:00"}
        other = made_up.measurement(made_up.variant(width=0.9), per_case={**fewer, "new": fewer["case-01"]}, **later)
        with pytest.raises(SpecError, match=r"1 came, 1 went \(\+new, -case-07\)") as refused:
            front([*found, other])
        assert refused.value.found.startswith(other.variant.label) and "--out" in refused.value.remedy
        without = made_up.measurement(made_up.variant(width=0.9), per_case={}, **later)
        assert front([*found, without]).members, "there is nothing to compare"

    def test_three_objectives_and_one(self) -> None:
        items = study()
        items[3] = made_up.measurement(made_up.variant(width=0.5), dice=0.80, latency_ms=4.0, size_bytes=1000)
        assert row(front(items, (DICE, RATIO, SIZE)), items[3]).status == "front"
        only = front(items, (RATIO,))
        assert [member.digest for member in only.members] == [items[2].digest]
        assert only.pick is None and only.decision.outcome == "no task objective"
        assert only.featured == items[2].digest
        best = front(items, (DICE,))
        assert best.pick is not None and best.pick.digest == items[1].digest, "the baseline is no candidate"


class TestPick:
    def test_the_cheapest_that_is_shown_to_lose_no_more_than_the_margin(self) -> None:
        items = study()
        pick = front(items).pick
        assert pick is not None and pick.judged.shown
        assert pick.digest == items[1].digest
        assert "smallest latency vs baseline" in pick.reason and "at most 0.010 of Dice mean" in pick.reason
        wide = front(items, margin=0.2).pick
        assert wide is not None and wide.digest == items[2].digest

    def test_the_recovered_baseline_is_not_picked_while_there_is_another(self) -> None:
        items = study()
        recovered = dataclasses.replace(items[1].variant, recovered=True)
        items[1] = dataclasses.replace(items[1], variant=recovered)
        pick = front(items).pick
        assert pick is not None and pick.digest not in {items[1].digest, items[2].digest}

    def test_when_none_is_shown_there_is_no_pick_and_the_closest_is_named(self) -> None:
        items = [study()[0], *study()[2:4]]
        report = front(items, constraints=[Constraint("latency_ratio", at_most=0.9)])
        assert report.pick is None and report.decision.outcome == "none shown"
        assert report.decision.nearest == report.featured == items[2].digest
        assert {report.decision.judged[item.digest].word for item in items[1:]} == {"inferior"}
        assert [member.digest for member in report.members] == [items[2].digest, items[1].digest], (
            "they keep their place"
        )

    def test_without_a_margin_there_is_no_verdict(self) -> None:
        report = front(study(), margin=None)
        assert report.pick is None and report.decision.outcome == "no margin" and report.decision.judged == {}
        assert report.featured in {member.digest for member in report.members}

    def test_without_a_baseline_nothing_is_claimed(self) -> None:
        report = front(study()[1:], baseline_digests=[])
        assert report.pick is None and report.decision.outcome == "no baseline"

    def test_an_accuracy_metric_that_is_better_when_small(self) -> None:
        pick = front(study(), (Objective("hd95_px", "minimize"), RATIO), margin=0.5).pick
        assert pick is not None and pick.judged.shown
        assert pick.digest == study()[1].digest
