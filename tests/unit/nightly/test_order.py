"""Which pairs a night runs when its budget is not enough."""

from __future__ import annotations

from dataclasses import replace

from edgedeploy.nightly.order import Pair, expected_session_s, in_order, next_pair, plan

A_MINUTE = Pair("a", "cart", session_s=60.0, nights=1)


def test_what_matters_and_what_waited_longest_goes_first() -> None:
    usual, important = A_MINUTE, replace(A_MINUTE, entry="important", importance=2.0)
    waited, new = replace(A_MINUTE, entry="waited", nights=3), replace(A_MINUTE, entry="new", nights=None)
    again = replace(A_MINUTE, entry="again", nights=0)
    assert in_order([again, usual, important, waited, new]) == [new, waited, important, again, usual]


def test_a_board_takes_the_first_that_still_fits() -> None:
    long = replace(A_MINUTE, entry="long", importance=9.0, session_s=600.0)
    assert next_pair([A_MINUTE, long], 3600) == long
    assert next_pair([A_MINUTE, long], 600) == A_MINUTE
    assert next_pair([A_MINUTE, long], 119) is None


def test_what_does_not_fit_has_its_reason_and_its_turn_on_another_night() -> None:
    """Three pairs of two minutes in nights of four minutes: no pair is left out twice in a row."""
    nights = dict.fromkeys("abc", 1.0)
    counts = dict.fromkeys("abc", 0)
    for _ in range(30):
        pairs = [replace(A_MINUTE, entry=name, nights=nights[name], times=counts[name]) for name in nights]
        planned = plan(pairs, 245)
        assert len(planned.turns) == 2 and planned.ends_s == 240
        assert list(planned.left_out.values()) == [
            "2 sessions of about 60 s did not fit into the 5 s that were left of the budget"
        ]
        ran = {turn.pair.entry for turn in planned.turns}
        assert not any(nights[name] > 1 for name in nights if name not in ran)
        for name in nights:
            nights[name] = 1.0 if name in ran else nights[name] + 1
            counts[name] += name in ran
    assert set(counts.values()) == {20}


def test_boards_work_side_by_side_and_those_of_one_machine_in_turn() -> None:
    other = replace(A_MINUTE, board="desk")
    assert [turn.begins_s for turn in plan([A_MINUTE, other], 3600).turns] == [0.0, 0.0]
    shared = [replace(pair, machine="this host") for pair in (A_MINUTE, other)]
    assert [turn.begins_s for turn in plan(shared, 3600).turns] == [0.0, 120.0]
    assert len(plan(shared, 200).left_out) == 1


def test_a_session_takes_as_long_as_the_latest_ones_did() -> None:
    assert expected_session_s([900.0, 10.0, 12.0, 11.0, 10.0, 600.0]) == 11.0
    assert expected_session_s([], [20.0], [5.0]) == 20.0
    assert expected_session_s([], [], [5.0]) == 5.0
    assert expected_session_s([], default_s=7.0) == 7.0
