"""Which variant may be shipped: looked for among all that were measured, by rules that were stated beforehand."""

from __future__ import annotations

import dataclasses
from typing import Any

import made_up
import numpy as np
import pytest

from edgedeploy.evidence.confirm import confirmation_of
from edgedeploy.evidence.confirmation import order_sha256
from edgedeploy.evidence.front import Front, build_front
from edgedeploy.evidence.pick import Judged
from edgedeploy.evidence.reasons import what_is_missing
from edgedeploy.records.goals import Constraint, LostCase, Margin, Objective, Rules
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.answer import not_shown
from edgedeploy.report.data import ReportData
from edgedeploy.report.shipping import headline
from edgedeploy.report.terminal import front_table
from edgedeploy.report.words import answer, status_text

DICE = Objective("dice_mean", "maximize")
RATIO = Objective("latency_ratio", "minimize")
BASE = made_up.variant()
INT8 = made_up.variant(precision="int8")
SMALL = made_up.variant(precision="int8", width=0.5)
MARGIN, WIDE = Margin(DICE, 0.01), Margin(DICE, 0.03)


def cases(shift: float, spread: float = 0.004, seed: int = 1, count: int = 40, **single: float) -> dict[str, Any]:
    """Dice by case: the baseline's, and what is lost or gained on average; ``single`` cases have a loss of their own."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, spread, count)
    values = made_up.cases(0.85, count=count, shift_noise=0.0)
    for (name, value), extra in zip(values.items(), own - own.mean() + shift, strict=True):
        value["dice_mean"] += single.get(name.replace("-", ""), extra)
    return values


def item(variant: Any, ms: float, values: dict[str, Any], **more: Any) -> Measurement:
    return made_up.measurement(variant, latency_ms=ms, per_case=values, **more)


def front(items: list[Measurement], rules: Rules | None = None, **more: Any) -> Front:
    settings: dict[str, Any] = {"baseline_digests": [BASE.digest], "margin": None, **more}
    asked = rules or Rules.of([MARGIN])
    return build_front(items, (DICE, RATIO), rules=asked, metrics=made_up.TASK_METRICS, **settings)


def judged(report: Front, variant: Any) -> Judged:
    return report.decision.judged[variant.digest]


def test_what_another_one_beats_by_its_values_alone_can_be_the_pick() -> None:
    """The faster one has the better mean, which a few cases make: it is on the front, and not shown."""
    noisy = cases(0.002, spread=0.08, seed=3)
    items = [item(BASE, 6.0, cases(0.0, 0.0)), item(SMALL, 1.0, noisy), item(INT8, 1.6, cases(0.0, 0.003, seed=4))]
    report = front(items)
    assert [row.digest for row in report.members] == [SMALL.digest]
    assert judged(report, SMALL).word == "not shown" and report.pick is not None and report.pick.digest == INT8.digest
    row = report.row(INT8.digest)
    assert row is not None and row.status == "indistinguishable", "a value that cannot be told apart dominates nothing"
    assert status_text(report.members[0], report) == "on the front; not shown to lose no more than is allowed"
    assert status_text(row, report).startswith("the pick; indistinguishable from")
    assert INT8.digest in {shown.digest for shown in report.shown}
    assert answer(report)[0] == f"Ship {row.variant.label}."


def test_a_mean_that_hides_broken_cases_ships_nothing() -> None:
    broken = cases(0.003, case07=-0.2, case31=-0.15)
    report = front([item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, broken)], Rules.of([WIDE], LostCase(DICE, 0.1)))
    found = judged(report, INT8)
    assert found.endpoints[0].shown and found.word == "not shown" and report.pick is None
    assert found.lost is not None and found.lost.lost == ("case-07", "case-31") and found.lost.more_than == 0.1
    text = " ".join(answer(report))
    assert "2 of 40 cases lose more than 0.100 of Dice mean: case-07, case-31; up to 14.9% of cases may" in text
    assert "none may. More cases will not show less." in text
    (row,) = [row for row in report.members if row.digest == INT8.digest]
    told = "its mean holds; 2 of 40 cases lost more than 0.100 of Dice mean"
    assert status_text(row, report) == f"on the front; {told}"


def test_a_share_that_may_be_lost_is_held_against_its_exact_bound() -> None:
    items = [item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, cases(0.0, case07=-0.2))]
    few = front(items, Rules.of([WIDE], LostCase(DICE, 0.1, 0.05)))
    assert few.pick is None and "11.3% of cases may (95% bound)" in what_is_missing(judged(few, INT8), few.metrics)
    wanted = judged(few, INT8).cases_wanted
    assert wanted is not None and wanted > 150
    assert (
        f"If its mean loss and its spread over cases stay as seen, about {wanted} cases would show it; there were 40."
        in " ".join(answer(few))
    )
    assert front(items, Rules.of([WIDE], LostCase(DICE, 0.1, 0.12))).pick is not None
    assert front(items, Rules.of([WIDE], LostCase(DICE, 0.3))).pick is not None


def test_a_case_without_a_value_is_lost() -> None:
    values = cases(0.0)
    values["case-05"] = {"dice_mean": None, "hd95_px": None}
    report = front([item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, values)])
    found = judged(report, INT8).lost
    assert found is not None and found.lost == ("case-05",) and report.pick is None


def test_each_endpoint_has_to_be_shown() -> None:
    items = [item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, cases(-0.001))]
    hd95 = Objective("hd95_px", "minimize")
    assert front(items, Rules.of([MARGIN, Margin(hd95, 0.1)])).pick is not None
    for values in items[1].cases.values():
        values["hd95_px"] += 0.2  # type: ignore[index,operator]
    worse = [items[0], item(INT8, 2.0, dict(items[1].cases))]
    report = front(worse, Rules.of([MARGIN, Margin(hd95, 0.1)]))
    assert [one.shown for one in judged(report, INT8).endpoints] == [True, False] and report.pick is None
    assert judged(report, INT8).word == "inferior"
    assert "Its loss of HD95 is bounded by" in what_is_missing(judged(report, INT8), report.metrics)


def test_what_is_compared_is_counted_once_and_only_where_it_is_cheaper() -> None:
    values = cases(-0.0055, 0.014, seed=5)
    items = [item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, values)]
    alone = front(items)
    assert alone.pick is not None and alone.decision.questions == 1
    threads = [item(made_up.variant(precision="int8", threads=count), 2.0, values) for count in (1, 3, 4)]
    slower = [item(made_up.variant("openvino", width=width), 9.0, cases(-0.001, seed=9)) for width in (0.8, 0.9)]
    same = front([*items, *threads, *slower])
    assert (same.decision.compared, same.decision.questions) == (4, 1) and same.pick is not None
    assert not judged(same, slower[0].variant).compared and judged(same, slower[0].variant).word == "non-inferior"
    others = [
        item(made_up.variant("openvino", "int8", round(1 - number / 50, 2)), 2.5, cases(-0.03, 0.03, seed=20 + number))
        for number in range(1, 30)
    ]
    many = front([*items, *others])
    assert many.decision.questions == 30 and many.pick is None, "Holm's first step is at 0.05 / 30"
    assert many.decision.nearest == INT8.digest
    assert judged(many, INT8).level == pytest.approx(1 - 0.05 / 30)


def test_a_ratio_to_the_baseline_is_held_against_one_and_not_against_the_baselines_own_noise() -> None:
    for own, other, picked in ((1.04, 1.02, False), (0.97, 0.98, True)):
        items = [item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 6.0, cases(0.0))]
        for one, ratio in zip(items, (own, other), strict=True):
            one.metrics["latency_ratio"] = ratio  # type: ignore[index]
        report = front(items)
        assert (report.pick is not None, report.decision.compared) == (picked, int(picked))


def test_fewer_than_five_groups_give_no_verdict_and_it_is_said() -> None:
    def grouped(found: Measurement, count: int) -> Measurement:
        return dataclasses.replace(
            found, groups={name: place % count for place, name in enumerate(sorted(found.cases))}
        )

    items = [item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, cases(0.0))]
    few = front([grouped(one, 4) for one in items])
    assert few.pick is None and judged(few, INT8).word == "no verdict"
    assert "its 40 cases are of 4 groups, and fewer than 5 bound no loss" in " ".join(answer(few))
    enough = front([grouped(one, 8) for one in items])
    assert enough.pick is not None and enough.decision.groups == 8
    assert judged(enough, INT8).endpoints[0].comparison.units == 40
    assert not any("Clusters unknown" in line for line in answer(enough))
    assert any("Clusters unknown" in line for line in answer(front(items)))


def test_a_pick_prints_as_its_digest_and_reason() -> None:
    pick = front([item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, cases(0.0))]).pick
    assert pick is not None and str(pick) == f"{INT8.digest}: {pick.reason}"


@pytest.mark.parametrize(("named", "times"), [(True, 0), (False, 1), (None, 1)])
def test_whether_cases_belong_together_is_told_once_and_not_where_each_is_a_group_of_its_own(
    named: bool | None, times: int
) -> None:
    items = [item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 2.0, cases(0.0))]
    found = dataclasses.replace(front(items), clusters_named=named)
    assert found.decision.groups is None
    terminal = " ".join(front_table(found).notes)
    page = " ".join(not_shown(ReportData("made up", found, items, "", ""), found.row(found.featured)))
    assert [text.lower().count("clusters unknown") for text in (terminal, page)] == [times, times]


def test_a_limit_that_the_baseline_misses_does_not_narrow_the_candidates() -> None:
    items = [item(BASE, 6.0, cases(0.0, 0.0), size_bytes=9_000_000), item(INT8, 9.0, cases(0.0))]
    assert front(items).decision.outcome == "nothing cheaper"
    assert front(items, constraints=[Constraint("size_bytes", at_most=5e6)]).pick is not None


class TestConfirmation:
    ITEMS = (
        item(BASE, 6.0, cases(0.0, 0.0)),
        item(SMALL, 1.0, cases(0.0, seed=3)),
        item(INT8, 2.0, cases(0.0, seed=4)),
    )

    def opening(self, report: Front, **changes: Any) -> dict[str, Any]:
        order = report.decision.order
        sha256 = order_sha256(order, report.decision.rules)
        return {"utc": "2026-01-01", "reason": "", "variants": order, "order": order, "order_sha256": sha256, **changes}

    def unseen(self, loss: float, spread: float = 0.004) -> list[Measurement]:
        base, small, _ = self.ITEMS
        pair = ((base, cases(0.0, 0.0)), (small, cases(-loss, spread, seed=8)))
        return [item(one.variant, 6.0, values, split="confirmation") for one, values in pair]

    def confirmed(self, found: list[Measurement], *openings: dict[str, Any]) -> Front:
        report = front(list(self.ITEMS))
        assert report.decision.order == (SMALL.digest, INT8.digest)
        return dataclasses.replace(report, confirmation=confirmation_of(report, found, openings))

    def test_the_pick_is_confirmed_alone(self) -> None:
        opening = self.opening(front(list(self.ITEMS)))
        report = self.confirmed(self.unseen(0.001), opening)
        found = report.confirmation
        assert found is not None and (found.outcome, found.intact, found.openings) == ("confirmed", True, 1)
        assert report.fit_to_ship and answer(report)[0].startswith("Ship ")
        assert answer(report)[1].startswith("Confirmed on 40 unseen cases: its Dice mean is 0.001 worse")

    @pytest.mark.parametrize(("loss", "spread"), [(0.03, 0.004), (0.0, 0.08)])
    def test_the_first_line_says_what_was_not_confirmed_and_names_the_next(self, loss: float, spread: float) -> None:
        report = self.confirmed(self.unseen(loss, spread), self.opening(front(list(self.ITEMS))))
        small, int8 = (report.labels[variant.digest] for variant in (SMALL, INT8))
        assert not report.fit_to_ship
        assert headline(report).startswith(
            f"Not confirmed: unseen cases do not show {small} fit to ship. In the order "
        )
        assert headline(report).endswith(f"fixed before they were opened, the next is {int8}.")
        assert answer(report)[0] == headline(report)

    def test_lost_cases_are_looked_for_there_too(self) -> None:
        values = cases(0.002, seed=8, case03=-0.3)
        found = [self.unseen(0.0)[0], item(SMALL, 1.0, values, split="confirmation")]
        report = self.confirmed(found, self.opening(front(list(self.ITEMS))))
        assert report.confirmation is not None and report.confirmation.outcome == "not confirmed"

    def test_an_order_that_was_fixed_for_another_confirms_nothing(self) -> None:
        opening = self.opening(front(list(self.ITEMS)), order=(INT8.digest, SMALL.digest))
        report = self.confirmed(self.unseen(0.0), opening)
        assert report.confirmation is not None and report.confirmation.outcome == "another was first"
        assert "was picked after the confirmation split had been opened for" in headline(report)

    def test_a_log_that_was_changed_is_told(self) -> None:
        opening = self.opening(front(list(self.ITEMS)), order=(SMALL.digest,))
        assert any("somebody changed it" in line for line in answer(self.confirmed(self.unseen(0.0), opening)))

    def test_further_openings_are_counted_and_a_continued_one_is_not(self) -> None:
        first = self.opening(front(list(self.ITEMS)))
        again = self.confirmed(self.unseen(0.0), first, {**first, "variants": []})
        assert again.confirmation is not None and again.confirmation.openings == 1
        more = self.confirmed(self.unseen(0.0), first, {**first, "order": (INT8.digest,)})
        assert any("was opened 2 times" in line for line in answer(more))

    def test_a_split_that_stayed_closed_is_told(self) -> None:
        report = self.confirmed([])
        assert report.confirmation is not None and report.confirmation.outcome == "not opened"
        assert "The confirmation split was not opened" in answer(report)[1]
        older = self.confirmed(self.unseen(0.0), {"utc": "", "reason": "", "variants": []})
        assert any("No order of candidates was fixed" in line for line in answer(older))


def test_a_variant_without_values_where_the_baseline_has_them_is_not_shown() -> None:
    """The cases that are left may be those that it gets right."""
    values = cases(0.0)
    for case in list(values)[:3]:
        values[case].pop("dice_mean")
    report = front([item(BASE, 6.0, cases(0.0, 0.0)), item(INT8, 1.6, values)])
    assert judged(report, INT8).word == "no verdict" and "undefined in 3 cases" in judged(report, INT8).why
    assert report.pick is None
