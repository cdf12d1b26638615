"""What another board's study has measured, as it runs on this one: threads and power modes are each board's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_search import SPACE

from edgedeploy.records.variant import Variant
from edgedeploy.search.space import Space
from edgedeploy.search.warmstart import Trained
from edgedeploy.study.warmstart import _first_trials, as_run_here

SMALL = Space(
    targets=("onnxruntime",),
    parameters={"width": (1.0, 0.5), "precision": ("float32", "int8")},
    arch_defaults={"resolution": 128},
    target_precisions={"onnxruntime": ("float32", "int8")},
    default_threads=4,
)
"""Of a board with four cores, in a study that does not search threads."""


def there(threads: int, width: float = 1.0, precision: str = "int8", power_mode: str = "") -> Variant:
    arch = (("resolution", 128),)
    return Variant("onnxruntime", precision, width, arch, threads, power_mode=power_mode)


def test_a_board_with_other_cores_tries_what_is_trained() -> None:
    trained = [Trained(there(2, width), (0.8, 0.5 * width), True) for width in (1.0, 0.5)]
    assert [SMALL.params_of(item.variant) for item in trained] == [None, None], "two threads are not in its space"
    found = as_run_here(trained, SMALL)
    assert [item.variant for item in found] == [there(4, 1.0), there(4, 0.5)]
    assert [(item.values, item.same_file) for item in found] == [((0.8, 0.5), True), ((0.8, 0.25), True)]


def test_of_several_that_run_as_one_here_the_nearest_number_of_threads_stands_for_it() -> None:
    values = {1: (0.8, 0.9), 8: (0.8, 0.3), 2: (0.8, 0.6)}
    found = as_run_here([Trained(there(threads), values[threads]) for threads in values], SMALL)
    assert [(item.variant.threads, item.values) for item in found] == [(4, values[8])]
    searched = replace(SMALL, parameters={**SMALL.parameters, "threads": (2, 4)})
    found = as_run_here([Trained(there(threads), values[threads]) for threads in values], searched)
    assert [(item.variant.threads, item.values) for item in found] == [(2, values[2]), (4, values[8])]


def test_a_power_mode_that_this_board_lacks_is_its_own_first_one() -> None:
    modes = replace(SMALL, parameters={**SMALL.parameters, "power_mode": ("15W", "30W"), "threads": (2, 4)})
    known = [Trained(there(2, power_mode=mode), (0.8, value)) for mode, value in (("MAXN", 0.4), ("30W", 0.6))]
    found = as_run_here(known, modes)
    assert {(item.variant.threads, item.variant.power_mode): item.values[1] for item in found} == {
        (2, "30W"): 0.6,
        (2, "15W"): 0.4,
    }
    assert [item.variant for item in as_run_here(known, SMALL)] == [there(4)]


def test_what_the_space_has_stays_in_its_order_and_what_it_has_not_is_left_out() -> None:
    own = list(dict.fromkeys(map(SPACE.variant, SPACE.combinations())))[:9]
    trained = [Trained(item, (0.8, float(place))) for place, item in enumerate(own)]
    assert as_run_here(trained, SPACE) == trained
    assert (
        as_run_here(
            [Trained(there(2, width=0.3), (0.8, 1.0)), Trained(replace(own[0], target="litert"), (0.8, 1.0))], SMALL
        )
        == []
    )


@pytest.mark.parametrize(
    ("here", "told"), [(0, "none is tried first"), (3, "(of 5; this"), (5, "among 5 variants that were measured there")]
)
def test_how_many_are_tried_first_is_told_as_it_is(here: int, told: str) -> None:
    assert _first_trials(5, here).count(told) == 1
    assert ("no others" in _first_trials(5, here)) == (here == 3)
