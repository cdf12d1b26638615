"""When models are trained ahead of the boards, and under which lock."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from edges_task import Edges
from levels_task import ARCH, LeveledEdges

from edgedeploy.records.variant import Variant
from edgedeploy.search.space import Space
from edgedeploy.study.ahead import ahead_of
from edgedeploy.study.fits import Fits
from edgedeploy.study.preflight import Ready

SPACE = Space(("none",), {"width": (1.0, 0.5)}, ARCH, {"none": ("float32",)}, 1)
READY = Ready(LeveledEdges(), {}, (), None, SPACE, (), (), ())


class Bench:
    """Whether the host was locked while each model was made."""

    def __init__(self, host: Any, limit_bytes: int | None = None) -> None:
        self.locked: list[bool] = []
        self.fits = Fits(READY.task, limit_bytes)
        self._host = host

    def reference(self, variant: Variant) -> None:
        got: list[bool] = []
        other = threading.Thread(target=lambda: got.append(self._host.acquire(blocking=False)))
        other.start()
        other.join()
        self.locked.append(not got[0])


def trains(ready: Ready) -> bool:
    host = threading.RLock()
    bench: Any = Bench(host)
    prepare = ahead_of(ready, bench, host)
    if prepare is None:
        return False
    prepare(SPACE.variant({"target": "none", "width": 0.5}))
    assert bench.locked == [True]
    return True


def with_values(**parameters: tuple[Any, ...]) -> Ready:
    return replace(READY, space=replace(SPACE, parameters=parameters))


def test_only_where_models_are_trained_at_all() -> None:
    assert trains(READY)
    assert trains(with_values(mix=("wide", "narrow")))
    assert not trains(with_values(width=(1.0,), precision=("float32", "int8")))
    assert not trains(replace(READY, task=Edges()))


def test_not_while_a_board_may_come_that_is_this_host() -> None:
    away: Any = ("a board that does not answer",)
    assert not trains(replace(READY, away=away))


def test_not_what_has_no_room_on_the_board() -> None:
    host = threading.RLock()
    bench: Any = Bench(host, limit_bytes=1)
    prepare = ahead_of(READY, bench, host)
    assert prepare is not None
    prepare(replace(SPACE.variant({"target": "none", "width": 1.0}), target="onnxruntime"))
    assert bench.locked == []
