"""Boards of a crew that do not answer: what becomes of their jobs, and of a study whose boards stay away."""

from __future__ import annotations

import threading
from collections.abc import Callable

import made_up
import pytest

from edgedeploy.errors import BoardError, Quarantined, Unreachable
from edgedeploy.lab.crew import Crew, Post
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Outcome, Scored

LIMIT_S = 60.0
GONE = Unreachable("board 'a': connect", "connection refused")


def variants(count: int) -> list[Variant]:
    return [made_up.variant(width=1.0 - 0.01 * number) for number in range(count)]


def post(name: str, work: Callable[[Variant], Outcome], **more: object) -> Post:
    def set_aside(cause: str) -> BoardError:
        return Quarantined(f"board {name!r}", cause)

    return Post(name, work, set_aside, **more)  # type: ignore[arg-type]


def test_a_board_that_is_lost_gives_its_job_to_another_and_goes_on_when_it_is_back() -> None:
    back, here, lost, done = threading.Event(), threading.Event(), threading.Event(), list[str]()

    def lost_once(variant: Variant) -> Outcome:
        if not here.is_set():
            lost.set()
            raise GONE
        done.append("a")
        return Scored((), {})

    def come(pause: Callable[[float], None]) -> bool:
        while not back.is_set():
            pause(0.01)
        here.set()
        return True

    with Crew([post("a", lost_once, come=come)]) as alone:
        first = alone.submit(made_up.variant())
        back.set()
        assert first.result(LIMIT_S) == Scored((), {})
    assert done == ["a"]
    for event in (back, here, lost):
        event.clear()

    def other(variant: Variant) -> Outcome:
        assert lost.wait(LIMIT_S)
        return Scored((), {})

    with Crew([post("a", lost_once, come=come), post("b", other)]) as crew:
        futures = [crew.submit(variant) for variant in variants(6)]
        assert [future.result(LIMIT_S) for future in futures] == [Scored((), {})] * 6
        assert not here.is_set()
        while crew.slots() != 1:  # the lost board counts for no slot
            assert not back.wait(0.01)
        back.set()
        assert here.wait(LIMIT_S)


def test_boards_that_stay_away_end_the_study_with_the_last_one() -> None:
    def gone(variant: Variant) -> Outcome:
        raise GONE

    def never(pause: Callable[[float], None]) -> bool:
        raise GONE

    told: list[str] = []
    with Crew([post("a", gone, come=never), post("b", gone, come=never, absent=True)], tell=told.append) as crew:
        with pytest.raises(Unreachable):
            crew.submit(made_up.variant()).result(LIMIT_S)
        with pytest.raises(Unreachable):
            crew.submit(made_up.variant(width=0.5)).result(LIMIT_S)
    assert [line for line in told if "goes on with 1 of 2 boards" in line]


def test_the_end_of_a_study_ends_the_waiting() -> None:
    begun, ended = threading.Event(), threading.Event()

    def come(pause: Callable[[float], None]) -> bool:
        begun.set()
        try:
            while True:
                pause(LIMIT_S)
        finally:
            ended.set()

    absent = post("a", lambda variant: Scored((), {}), come=come, absent=True)
    with Crew([absent, post("b", lambda variant: Scored((), {}))]) as crew:
        assert crew.submit(made_up.variant()).result(LIMIT_S) == Scored((), {})
        assert begun.wait(LIMIT_S)
    assert ended.is_set()
