"""When "faster" is said, on made-up series of a host on which bursts of other work come and go."""

from __future__ import annotations

import json

import made_up
import numpy as np
import pytest

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.front import build_front
from edgedeploy.evidence.verdict import MIN_ROUNDS, Verdict, latency_verdict
from edgedeploy.records.goals import Objective
from edgedeploy.records.job import RawSide

BLOCK, BLOCKS = 8, 84
"""As a study measures unless it says otherwise."""
RATIO = Objective("latency_ratio", "minimize")


def raw(blocks: np.ndarray) -> RawSide:
    times = tuple(tuple(int(1e6 * ms) for ms in block) for block in blocks)
    return RawSide(times, (), (), 1, {}, "CPU", "1")


def bursty_pair(seed: int, ratio: float, *, busy: float = 0.4, drift: float = 0.0) -> tuple[RawSide, RawSide]:
    """Made up: blocks of both sides in ABBA order on a host that is busy in stretches of about 10 blocks; there a query
    takes 1.2 to 3 times as long. ``ratio`` is the truth, ``drift`` the share by which the last block is slower."""
    rng = np.random.default_rng(seed)
    slots = 2 * BLOCKS
    state, states = False, []
    for _ in range(slots):
        if rng.random() < (0.1 if state else 0.1 * busy / (1 - busy)):
            state = not state
        states.append(state)
    times = np.exp(rng.normal(0, 0.02, (slots, BLOCK))) * (1 + drift * np.linspace(0, 1, slots)[:, None])
    times[states] *= rng.uniform(1.2, 3.0, (sum(states), BLOCK))
    ours = [index for index in range(slots) if index % 4 in (0, 3)]
    theirs = [index for index in range(slots) if index % 4 in (1, 2)]
    return raw(ratio * times[ours]), raw(times[theirs])


def words(ratio: float, pairs: int, **conditions: float) -> list[str]:
    found = [latency_verdict(*bursty_pair(seed, ratio, **conditions), resamples=400) for seed in range(pairs)]
    return [verdict.word for verdict in found if verdict is not None]


def test_the_same_work_is_hardly_ever_called_faster() -> None:
    said = words(1.0, 400)
    assert said.count("faster") <= 4
    assert said.count("slower") <= 4


def test_looking_at_medians_alone_is_wrong_half_of_the_time() -> None:
    """What the rule is for: without a bound the same series say "faster" in every other pair."""
    pairs = [bursty_pair(seed, 1.0) for seed in range(400)]
    smaller = sum(np.median(np.ravel(a.blocks_ns)) < np.median(np.ravel(b.blocks_ns)) for a, b in pairs)
    assert 150 <= smaller <= 250


@pytest.mark.parametrize(("ratio", "word"), [(0.952, "faster"), (1.05, "slower")])
def test_a_true_difference_of_5_percent_is_found(ratio: float, word: str) -> None:
    assert words(ratio, 200).count(word) >= 190


def test_a_board_that_warms_up_is_no_difference() -> None:
    said = words(1.0, 200, busy=0.05, drift=0.3)
    assert said.count("no difference shown") == 200


def test_a_difference_within_the_margin_is_not_called_one() -> None:
    """Half a percent, seen clearly on a quiet host: what two processes of one artifact may differ by."""
    assert set(words(0.995, 50, busy=0.02)) == {"no difference shown"}


def test_few_rounds_say_nothing_however_large_the_difference() -> None:
    ours, theirs = bursty_pair(0, 0.3)
    few = 2 * (MIN_ROUNDS - 1)
    found = latency_verdict(made_up_part(ours, few), made_up_part(theirs, few))
    assert found is not None
    assert (found.word, found.low, found.high, found.rounds) == ("too few rounds", None, None, MIN_ROUNDS - 1)
    enough = latency_verdict(made_up_part(ours, few + 2), made_up_part(theirs, few + 2))
    assert enough is not None and enough.word == "faster"


def made_up_part(side: RawSide, blocks: int) -> RawSide:
    return RawSide(side.blocks_ns[:blocks], (), (), 1, {}, "CPU", "1")


def test_the_bounds_hold_the_ratio_and_the_same_seed_gives_them_again() -> None:
    pair = bursty_pair(3, 0.9)
    found, again = latency_verdict(*pair, seed=5), latency_verdict(*pair, seed=5)
    assert found == again and found is not None
    assert found.low is not None and found.high is not None
    assert found.low <= found.ratio <= found.high < 1


def test_nothing_timed_has_no_verdict_and_no_clock_gives_zero() -> None:
    empty = RawSide((), (), (), 1, {}, "CPU", "1")
    assert latency_verdict(empty, empty) is None
    with pytest.raises(MeasurementError, match="latency"):
        latency_verdict(RawSide(((0,),), (), (), 1, {}, "CPU", "1"), empty)


def test_a_front_says_who_is_faster_than_the_baseline_beside_it() -> None:
    base = made_up.measurement()
    fast = made_up.measurement(made_up.variant(width=0.5), latency_ms=3.0, seed=2)
    front = build_front([base, fast], [RATIO], baseline_digests=[base.digest], margin=0.01)
    verdicts = {row.digest: row.verdict for row in front.rows}
    assert verdicts[base.digest] is None
    found = verdicts[fast.digest]
    assert isinstance(found, Verdict) and found.word == "faster"
    rows = {row["digest"]: row for row in json.loads(json.dumps(front.as_json()))["rows"]}
    assert rows[fast.digest]["latency_verdict"]["word"] == "faster"
