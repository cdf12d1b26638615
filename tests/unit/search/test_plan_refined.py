"""Tables that are corrected by what whole plans lose, on MADE-UP networks whose roundings act on each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from edgedeploy.search.plan.programme import front
from edgedeploy.search.plan.refined import MORE, Precisions, refined
from edgedeploy.search.plan.table import Cost, Group, Noise, Table

GROUPS = 6
EVERY = tuple(itertools.product(("int8", "float32"), repeat=GROUPS))
Loss = Callable[[Precisions], float]


def network(seed: int) -> tuple[Table, list[float], Loss]:
    """A table of one rounding a layer, the noise of each, and what a plan really takes off a squared metric: with the errors
    ``d`` of its roundings and the model's own ``e`` it is |e + sum(d)|^2 - |e|^2."""
    rng = np.random.default_rng(seed)
    errors, own = rng.standard_normal((GROUPS, 8)), 0.3 * rng.standard_normal(8)

    def loss_of(precisions: Precisions) -> float:
        narrow = [precision == "int8" for precision in precisions]
        return float(np.square(own + errors[narrow].sum(axis=0)).sum() - np.square(own).sum())

    powers = [float(np.square(error).sum()) for error in errors]
    alone = [loss_of(tuple("int8" if i == at else "float32" for i in range(GROUPS))) for at in range(GROUPS)]
    groups = [Group((f"layer{at}",), {"int8": Cost(1.0), "float32": Cost(2.0 + at)}) for at in range(GROUPS)]
    noises = [Noise(f"t{at}", loss, ((at, "int8"),)) for at, loss in enumerate(alone)]
    return Table(tuple(groups), tuple(noises)), powers, loss_of


def away(table: Table, loss_of: Loss) -> float:
    """Mean distance of a table's losses from the real ones, over all plans."""
    return float(np.mean([abs(table.plan(plan).loss - loss_of(plan)) for plan in EVERY]))


@pytest.mark.parametrize("seed", range(4))
def test_what_roundings_do_to_each_other_is_learnt_from_whole_plans(seed: int) -> None:
    table, powers, loss_of = network(seed)
    found = refined(table, powers, loss_of)
    assert away(found.table, loss_of) < 0.5 * away(table, loss_of)
    for plan, loss in found.losses.items():
        assert loss == loss_of(plan)
        assert found.table.plan(plan).loss == pytest.approx(loss, abs=1e-3 * max(map(abs, found.losses.values())))


@pytest.mark.parametrize("seed", range(4))
def test_the_plans_of_its_front_were_looked_at_and_lose_least(seed: int) -> None:
    """Real losses of its plans against those of the plans of the table that adds up, at the same times."""
    table, powers, loss_of = network(seed)
    found = refined(table, powers, loss_of)
    for plan in front(table):
        best = found.best(plan.time_ns)
        assert best is not None
        assert best.loss == found.losses[best.precisions]
        assert best.time_ns <= plan.time_ns * (1 + 1e-9)
    worse = [loss_of(plan.precisions) for plan in front(table)]
    better = [loss_of(best.precisions) for plan in front(table) if (best := found.best(plan.time_ns))]
    assert sum(better) < sum(worse)


@pytest.mark.parametrize("seed", range(4))
def test_what_no_pair_explains_is_not_laid_on_pairs(seed: int) -> None:
    """Losses that are drawn for each plan by itself: a table that ran after them would expect what no plan has."""
    table, powers, _ = network(seed)
    drawn = dict(zip(EVERY, np.random.default_rng(seed).normal(0, sum(powers), len(EVERY)).tolist(), strict=True))
    found = refined(table, powers, drawn.__getitem__)
    expected = [found.table.plan(plan).loss for plan in EVERY]
    assert max(expected) - min(expected) < max(drawn.values()) - min(drawn.values())


def test_better_losses_refine_a_table_again() -> None:
    """As those of files that ran, after a simulation on few cases."""
    table, powers, loss_of = network(1)
    rough = refined(table, powers, lambda plan: loss_of(plan) + 2.0 * plan.count("int8"))
    asked = [plan.precisions for plan in front(rough.table)]
    again = refined(rough.table, rough.powers, loss_of, first=asked, more=8)
    assert list(again.losses)[: len(asked)] == asked
    assert len(again.losses) <= len(asked) + 8
    assert away(again.table, loss_of) < away(rough.table, loss_of)


def test_no_plan_is_looked_at_twice_and_none_in_vain() -> None:
    table, powers, loss_of = network(0)
    asked: list[Precisions] = []

    def look(plan: Precisions) -> float:
        asked.append(plan)
        return loss_of(plan)

    found = refined(table, powers, look)
    assert list(found.losses) == asked
    assert len(set(asked)) == len(asked) <= 2 * GROUPS + 1 + MORE < len(EVERY)
    asked.clear()
    assert len(refined(table, powers, look, more=0).losses) == 2 * GROUPS + 1


@pytest.mark.parametrize("power", [0.0, 1e-200])
def test_a_metric_may_lose_where_the_outputs_have_no_noise(power: float) -> None:
    """As the classes of a network that ends in an ArgMax: none changes for one rounding, and some do for two."""
    groups = [Group((name,), {"int8": Cost(1.0), "float32": Cost(2.0)}) for name in ("a", "b")]
    table = Table(tuple(groups), tuple(Noise(group.layers[0], 0.0, ((i, "int8"),)) for i, group in enumerate(groups)))
    both = ("int8", "int8")
    found = refined(table, [power, power], lambda plan: 0.25 if plan == both else 0.0)
    assert found.losses[both] == 0.25
    assert found.table.plan(both).loss == pytest.approx(0.25, abs=0.05)
    best = found.best(3.0)
    assert best is not None and (best.time_ns, best.loss) == (3.0, 0.0)


def test_losses_that_add_up_stay_as_they_are() -> None:
    table, powers, _ = network(0)
    found = refined(table, powers, lambda plan: table.plan(plan).loss)
    assert away(found.table, lambda plan: table.plan(plan).loss) < 1e-9


def test_nothing_is_the_best_where_nothing_is_quick_enough() -> None:
    table, powers, loss_of = network(0)
    assert refined(table, powers, loss_of).best(GROUPS - 0.5) is None


def test_groups_that_can_only_be_narrow_and_tables_without_any_noise() -> None:
    only = Group(("a",), {"int8": Cost(1.0)})
    both = Group(("b",), {"int8": Cost(1.0), "float32": Cost(2.0)})
    table = Table((only, both), (Noise("a", 1.0, ((0, "int8"),)), Noise("b", 2.0, ((1, "int8"),))))
    found = refined(table, [1.0, 2.0], lambda plan: 1.0 if plan[1] == "float32" else 2.5)
    assert found.losses == {("int8", "int8"): 2.5, ("int8", "float32"): 1.0}
    assert found.table.plan(("int8", "int8")).loss == pytest.approx(2.5, abs=1e-4)
    silent = Table((both,), ())
    assert set(refined(silent, [], lambda plan: 0.0).losses) <= {("int8",), ("float32",)}
