"""The programme against all combinations of small tables."""

from __future__ import annotations

import ctypes
import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedeploy.search.plan import programme
from edgedeploy.search.plan.programme import ends_of, front, solve
from edgedeploy.search.plan.table import Border, Cost, Group, Noise, Plan, Table

PRECISIONS = ("int8", "bfloat16", "float32")
WHOLE = st.integers(0, 40).map(float)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Up to five groups with two or three precisions, noises of one or several, conversions between some."""
    groups = []
    for index in range(draw(st.integers(1, 5))):
        names = PRECISIONS if draw(st.booleans()) else ("int8", "float32")
        groups.append(Group((f"layer{index}",), {name: Cost(draw(WHOLE), draw(WHOLE)) for name in names}))
    members = [(index, name) for index, group in enumerate(groups) for name in group.costs if name != "float32"]
    asked = st.lists(st.sampled_from(members), min_size=1, max_size=3, unique=True)
    noises = [
        Noise(f"n{number}", draw(WHOLE) - draw(st.sampled_from([0, 20])), tuple(draw(asked)))
        for number in range(draw(st.integers(0, 6)))
    ]
    pairs = draw(st.lists(st.sampled_from(list(itertools.pairwise(range(len(groups)))) or [(0, 0)]), max_size=3))
    borders = [Border(first, second, draw(WHOLE)) for first, second in pairs if first != second]
    return Table(tuple(groups), tuple(noises), tuple(borders))


def every_plan(table: Table) -> list[Plan]:
    return [table.plan(choice) for choice in itertools.product(*(group.costs for group in table.groups))]


def goal(plan: Plan) -> tuple[float, float]:
    return plan.loss, plan.time_ns


@settings(max_examples=50, deadline=None)
@given(tables(), st.floats(0, 1), st.floats(0, 1))
def test_no_other_plan_within_the_budgets_is_better(table: Table, time: float, size: float) -> None:
    plans = every_plan(table)
    time_ns = round(time * max(plan.time_ns for plan in plans)) + 0.5
    size_bytes = round(size * max(plan.size_bytes for plan in plans)) + 0.5
    within = [plan for plan in plans if plan.time_ns <= time_ns and plan.size_bytes <= size_bytes]
    found = solve(table, time_ns=time_ns, size_bytes=size_bytes)
    if not within:
        assert found is None
    else:
        assert found is not None
        assert found in within
        assert goal(found) == min(map(goal, within))


@settings(max_examples=20, deadline=None)
@given(tables())
def test_a_front_holds_what_is_not_beaten_and_both_ends(table: Table) -> None:
    plans, found = every_plan(table), front(table, (0.2, 0.4, 0.6, 0.8))
    times, losses = [plan.time_ns for plan in found], [plan.loss for plan in found]
    assert times == sorted(set(times))
    assert losses == sorted(set(losses), reverse=True)
    for plan in found:
        assert plan in plans
        assert not any(
            other.time_ns <= plan.time_ns and other.loss <= plan.loss and goal(other) != goal(plan) for other in plans
        )
    fastest, least = min(plan.time_ns for plan in plans), min(plan.loss for plan in plans)
    assert (found[0].time_ns, found[-1].loss) == (fastest, least)
    ends = ends_of(table)
    assert (ends.budget_ns(0), ends.budget_ns(1)) == (ends.quickest.time_ns, ends.best.time_ns)


@settings(max_examples=20, deadline=None)
@given(tables())
def test_a_front_without_plans_is_that_of_the_rest(table: Table) -> None:
    first = front(table, (0.2, 0.4, 0.6, 0.8))
    rest = [plan for plan in every_plan(table) if plan not in first]
    second = front(table, (0.2, 0.4, 0.6, 0.8), without=first)
    assert bool(second) == bool(rest)
    for plan in second:
        assert plan in rest
        assert not any(
            other.time_ns <= plan.time_ns and other.loss <= plan.loss and goal(other) != goal(plan) for other in rest
        )


def layers(*costs: tuple[float, float]) -> tuple[Group, ...]:
    """Groups of one layer by their times in int8 and float32."""
    return tuple(
        Group((f"layer{index}",), {"int8": Cost(narrow, 1), "float32": Cost(wide, 4)})
        for index, (narrow, wide) in enumerate(costs)
    )


def alone(*losses: float) -> tuple[Noise, ...]:
    return tuple(Noise(f"w{index}", loss, ((index, "int8"),)) for index, loss in enumerate(losses))


def test_the_layer_that_int8_hurts_most_for_its_time_stays_in_float() -> None:
    table = Table(layers((1, 3), (1, 3), (1, 3)), alone(5, 9, 1))
    found = [solve(table, time_ns=budget) for budget in (3, 5, 7, 9)]
    assert [plan.precisions.count("float32") for plan in found if plan] == [0, 1, 2, 3]
    assert found[1] is not None
    assert found[1].precisions == ("int8", "float32", "int8")


def test_of_plans_that_are_alike_the_quickest_and_then_int8_is_taken() -> None:
    table = Table(layers((1, 3), (2, 2)), alone(0, 0))
    assert ends_of(table).best.precisions == ("int8", "int8")
    slower = Table(layers((3, 1), (2, 2)), alone(0, 0))
    assert ends_of(slower).quickest.precisions == ("float32", "int8")


def test_a_tensor_between_two_layers_is_rounded_once() -> None:
    shared = Noise("between", 8, ((0, "int8"), (1, "int8")))
    table = Table(layers((1, 3), (1, 3)), (*alone(1, 2), shared))
    assert table.plan(("int8", "int8")).loss == 11
    assert table.plan(("int8", "float32")).loss == 9
    found = solve(table, time_ns=4)
    assert found is not None
    assert found.precisions == ("int8", "float32")


def test_a_conversion_counts_where_precisions_differ() -> None:
    apart = Table(layers((1, 2), (1, 2)), alone(1, 1), (Border(0, 1, 5),))
    assert apart.plan(("int8", "float32")).time_ns == 8
    found = solve(apart, time_ns=4)
    assert found is not None
    assert found.precisions == ("float32", "float32")


def test_layers_of_one_group_move_together() -> None:
    group = Group(("a", "b"), {"int8": Cost(2), "float32": Cost(6)})
    table = Table((group,), alone(3))
    assert [plan.precisions for plan in front(table)] == [("int8",), ("float32",)]


def test_the_next_best_plan_is_found_without_the_best() -> None:
    table = Table(layers((1, 3), (1, 3), (1, 3)), alone(5, 9, 1))
    best = solve(table, time_ns=5)
    assert best is not None
    second = solve(table, time_ns=5, without=[best])
    assert second is not None
    assert (best.precisions.index("float32"), second.precisions.index("float32")) == (1, 0)
    one = Table(layers((1, 3)), alone(1))
    assert solve(one, without=[one.plan(("int8",)), one.plan(("float32",))]) is None


def test_a_limit_is_kept_to_the_nanosecond_beside_long_layers() -> None:
    table = Table(layers((1e6, 2e6), (1.0, 3.0)), alone(0.0, 0.5))
    plan = solve(table, time_ns=1e6 + 2)
    assert plan is not None and plan.time_ns == 1e6 + 1
    assert ends_of(table).quickest.time_ns == 1e6 + 1


def test_no_plan_is_within_an_impossible_budget() -> None:
    table = Table(layers((1, 3), (1, 3)), alone(1, 1))
    assert solve(table, time_ns=1.5) is None
    assert solve(table, size_bytes=1.5) is None


def test_a_rounding_that_improves_a_metric_is_chosen_when_it_costs_nothing_else() -> None:
    gain = Noise("w0", -2, ((0, "int8"),))
    shared = Noise("between", -1, ((0, "int8"), (1, "int8")))
    table = Table(layers((2, 2), (1, 3)), (gain, shared, *alone(0, 5)))
    assert ends_of(table).best.precisions == ("int8", "float32")
    assert ends_of(table).best.loss == -3


@pytest.mark.parametrize("cost", [Cost(-1), Cost(float("nan")), Cost(1, float("inf"))])
def test_costs_that_cannot_be_are_refused(cost: Cost) -> None:
    with pytest.raises(ValueError, match="finite"):
        Table((Group(("a",), {"int8": cost}),), ())


def test_members_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no group has"):
        Table(layers((1, 2)), (Noise("n", 1, ((1, "int8"),)),))


def test_what_the_solver_writes_does_not_get_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """HiGHS tells of itself there now and then, from C: through a buffer that is flushed late."""
    with programme._silent():
        ctypes.CDLL(None).printf(b"HighsMipSolverData")
        os.write(1, b"more of it")
    os.write(1, b"data")
    assert capfd.readouterr().out == "data"
