"""What the trend page holds: packed numbers, marks of what happened, links to single series."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
import zlib
from array import array
from collections.abc import Callable, Sequence

import made_up_night as made_up
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedeploy.nightly.results.history import STATUSES, History, Line, Pair
from edgedeploy.nightly.results.lab_page import lab_page
from edgedeploy.nightly.results.packed import FINEST, LARGEST, NO_STATUS, NONE, packed, scale_of
from edgedeploy.nightly.results.trend_page import anchor, data_of, in_order, level_marks, trend_page
from edgedeploy.records.night import Acceptance, Night

NUMBERS = st.floats(-50, 50) | st.just(math.nan)


def history_of(nights: Sequence[Night]) -> History:
    history = History()
    for night in nights:
        history.add(night)
    return history


def unpacked(text: str, rows: int, nights: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``trend.js`` reads it."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    size = rows * nights

    def whole(start: int) -> np.ndarray:
        low, high = data[start : start + size], data[start + size : start + 2 * size]
        return (low.astype(np.uint16) | (high.astype(np.uint16) << 8)).view(np.int16).reshape(rows, nights)

    limits = np.cumsum(whole(2 * size), axis=1, dtype=np.int16)
    return whole(0), limits, data[4 * size :].reshape(rows, nights)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, len(STATUSES) - 1)), min_size=1, max_size=30), st.integers(0, 5)
)
def test_what_is_packed_is_what_was_there(points: list[tuple[float, float, int]], first: int) -> None:
    loss, limit, status = zip(*points, strict=True)
    nights = first + len(points) + 2
    line = Line(array("H", range(first, first + len(points))), array("d", loss), array("d", limit), bytearray(status))
    other = Line(array("H", [0]), array("d", [1e-5]), array("d", [math.nan]), bytearray([0]))
    losses, limits, statuses = unpacked(packed([other, line], nights), 2, nights)
    scale = scale_of(line)
    for found, wanted in ((losses[1], loss), (limits[1], limit)):
        kept = found[first : first + len(points)]
        for step, value in zip(kept, wanted, strict=True):
            assert (step == NONE) == math.isnan(value)
            assert step == NONE or abs(step * scale - value) <= scale
        assert set(found[:first]) | set(found[first + len(points) :]) == {NONE}
    assert list(statuses[1]) == [NO_STATUS] * first + list(status) + [NO_STATUS] * 2


def test_a_step_is_fine_and_the_largest_number_fits() -> None:
    small = Line(array("H", [0]), array("d", [0.01]), array("d", [0.05]), bytearray([0]))
    large = Line(array("H", [0]), array("d", [-900.0]), array("d", [math.nan]), bytearray([0]))
    assert scale_of(small) == FINEST
    assert 900 / scale_of(large) == pytest.approx(LARGEST)


def test_marks_say_what_changed_on_the_board_the_entry_and_the_host() -> None:
    nights = list(made_up.year(20, 2))
    last = made_up.night(
        "2026-11-30", tools=nights[-1].tools, accepted=(Acceptance("entry-000", "release 4"),), verdicts=()
    )
    history = history_of([*nights, last])
    assert [mark.text for mark in history.marks] == ["onnxruntime 1.24.0, before 1.23.2"]
    assert history.boards["jetson"].marks[0] == (10, "image R36.4.3, before R36.4.0")
    pair = history.pairs[Pair("entry-001", "cart")]
    assert [mark.night for mark in pair.keys] == [0, 10, 14]
    assert (14, "runtime 1.24.0, before 1.23.2") in pair.marks
    assert history.accepted["entry-000"] == [(20, "baseline accepted: release 4")]
    data = data_of(in_order(history), history)
    assert data["marks"]["entries"] == {"0": [[20, "baseline accepted: release 4"]]}
    assert data["keys"]["1,0"][1][0] == 10


def test_a_move_is_marked_at_the_first_night_after_it() -> None:
    """Nights name all moves so far; one before all nights of the page is none of its marks."""
    moves = [
        Acceptance("vessels", "old", "2026-01-01T00:00:00.000Z"),
        Acceptance("vessels", "new", "2026-11-28T10:00:00.000Z"),
    ]
    days = made_up.dates(3)
    nights = [
        made_up.night(days[0], accepted=(moves[0],)),
        *(made_up.night(day, accepted=tuple(moves)) for day in days[1:]),
    ]
    assert history_of(nights).accepted == {"vessels": [(1, "baseline accepted: new")]}


def test_a_changed_artifact_is_marked_once() -> None:
    changed = made_up.verdict(outcome="artifact", artifact_changes=("other bytes",))
    nights = [
        made_up.night(date, verdicts=(one,))
        for date, one in zip(
            made_up.dates(5), (made_up.verdict(), changed, changed, made_up.verdict(), changed), strict=True
        )
    ]
    pair = history_of(nights).pairs[Pair("vessels", "cart")]
    assert [mark for mark in pair.marks if "artifact" in mark.text] == [
        (1, "artifact: other bytes"),
        (4, "artifact: other bytes"),
    ]


def test_a_history_without_keys_is_broken_where_a_verdict_says_so() -> None:
    first, second = (made_up.verdict(state=None, new_history=new) for new in (False, True))
    nights = [
        made_up.night(date, verdicts=(one,))
        for date, one in zip(made_up.dates(4), (first, first, second, first), strict=True)
    ]
    assert [mark.night for mark in history_of(nights).pairs[Pair("vessels", "cart")].keys] == [0, 2]


def steps(levels: Sequence[float], keys: Sequence[str]) -> History:
    """One series; each level and key holds for 20 nights."""
    rng = np.random.default_rng(3)
    nights = []
    for number, date in enumerate(made_up.dates(20 * len(levels))):
        loss = levels[number // 20] + float(rng.normal(0, 0.005))
        found = made_up.state(key=keys[number // 20])
        one = made_up.verdict(series=(made_up.series(loss=loss),), state=found)
        nights.append(made_up.night(date, verdicts=(one,), boards=(made_up.health(state=found),)))
    return history_of(nights)


def test_a_change_of_level_is_marked_within_one_history_alone() -> None:
    history = steps((0.0, 0.0, 0.06), ("a", "a", "a"))
    ((night, text),) = level_marks(in_order(history), history)["0"]
    assert abs(night - 40) <= 1 and text.startswith("level +6.") and "before" in text
    other = steps((0.0, 0.0, 0.06), ("a", "a", "b"))
    assert level_marks(in_order(other), other) == {}


def test_the_worst_tonight_come_first_and_what_was_not_measured_tonight_last() -> None:
    before = made_up.night("2026-11-28", verdicts=(made_up.verdict("old", series=(made_up.slower(),)),))
    tonight = made_up.every_outcome()
    order = [(pair.entry, pair.board) for pair, _, _ in in_order(history_of([before, tonight]))]
    assert order[0] == ("thyroid", "cart") and order[-1] == ("old", "cart")


def test_an_anchor_has_no_letter_that_ends_it() -> None:
    assert anchor(Pair("a/b c", 'x"#'), "dice_mean") == "show/a%2Fb%20c/x%22%23/dice_mean"


@pytest.mark.parametrize("page", [lab_page, trend_page])
def test_the_policy_of_a_page_lets_each_of_its_scripts_run(page: Callable[..., str]) -> None:
    night = made_up.every_outcome()
    text = page(night, history_of([night]), ())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    named = re.findall(r"'sha256-([^']+)'", html.unescape(policy[1]))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert scripts
    assert {base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts} == set(named)
