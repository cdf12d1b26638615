"""The loop over tiles: progress, plans that are none, and sessions that answer whole volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.pipeline.tiles import Piece, TiledOutput, TileError, Tiling, run_tiles
from edgedeploy.runtime.sessions.tiles import ProfiledTiles, in_tiles

PLAN = Tiling(
    volume=(6, 4),
    tile=(4, 4),
    origins=((0, 2), (0,)),
    outputs={"y": TiledOutput((1, 1, 6, 4), (2, 3), ((Piece(0, 3, 0), Piece(3, 6, 2)), (Piece(0, 4, 0),)))},
)
VOLUME = np.arange(24, dtype=np.float32).reshape(1, 1, 6, 4)


class Doubling:
    """Doubles a tile; counts its runs."""

    inputs, outputs, device, version = ("x",), ("y",), "cpu", "1"

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def run(self, feeds: Any) -> dict[str, Any]:
        self.seen.append(feeds["x"].shape)
        return {"y": feeds["x"] * 2}

    def executed(self) -> dict[str, int]:
        return {"float32": 1}

    def profile(self, feeds: Any) -> list[dict[str, Any]]:
        return [{"name": "all", "shape": feeds[0]["x"].shape}]


def test_a_plan_comes_back_from_its_text() -> None:
    assert Tiling.from_text(PLAN.as_text()) == PLAN
    assert PLAN.count == 2 and PLAN.work == pytest.approx(32 / 24)


def test_tiles_are_put_together_and_each_is_told() -> None:
    told: list[tuple[int, int]] = []
    session = Doubling()
    found = run_tiles(session.run, {"x": VOLUME}, PLAN, lambda done, of: told.append((done, of)))
    assert np.array_equal(found["y"], VOLUME * 2)
    assert session.seen == [(1, 1, 4, 4)] * 2 and told == [(1, 2), (2, 2)]


def test_a_session_in_tiles_answers_whole_volumes(tmp_path: Path) -> None:
    (tmp_path / "tiles.json").write_text(PLAN.as_text(), encoding="utf-8")
    session = in_tiles(Doubling(), tmp_path / "tiles.json")
    assert isinstance(session, ProfiledTiles)
    assert np.array_equal(session.run({"x": VOLUME})["y"], VOLUME * 2)
    assert session.executed() == {"float32": 1} and session.device == "cpu"
    assert session.profile([{"x": VOLUME}])[0]["shape"] == (1, 1, 4, 4)
    with pytest.raises(RuntimeFault, match=r"the plan is for volumes of \(6, 4\)"):
        session.run({"x": VOLUME[:, :, :5]})
    (tmp_path / "tiles.json").write_text("{", encoding="utf-8")
    for name, found in (("tiles.json", "damaged"), ("none.json", "No such file")):
        with pytest.raises(RuntimeFault, match=found):
            in_tiles(Doubling(), tmp_path / name)


def _at(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _at("volume", value=[6]),
        _at("volume", value=[6, 1 << 40]),
        _at("tile", value=[0, 4]),
        _at("tile", value=["4", 4]),
        _at("origins", 0, 1, value=3),
        _at("origins", 0, value=[0] * 200_000),
        _at("outputs", value={}),
        _at("outputs", "y", "axes", 0, value=7),
        _at("outputs", "y", "shape", value=[1, 1, 6, 5]),
        _at("outputs", "y", "pieces", 0, 0, value=[0, 2, 0]),
        _at("outputs", "y", "pieces", 0, 1, value=[3, 6, 4]),
        _at("outputs", "y", "pieces", 0, 1, value=[3, 6]),
    ],
)
def test_a_plan_that_leaves_something_out_is_refused(change: Callable[[Any], None]) -> None:
    data = json.loads(PLAN.as_text())
    change(data)
    with pytest.raises(TileError):
        Tiling.from_text(json.dumps(data))


def test_an_answer_that_does_not_fit_is_no_answer() -> None:
    with pytest.raises(TileError, match="does not fit"):
        run_tiles(lambda feeds: {"y": feeds["x"][:, :, :3]}, {"x": VOLUME}, PLAN)
    with pytest.raises(TileError, match="expected an output 'y'"):
        run_tiles(lambda feeds: {"z": feeds["x"]}, {"x": VOLUME}, PLAN)
