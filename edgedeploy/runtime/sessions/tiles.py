"""A session that runs volumes in tiles: what is measured on a board, and what a product runs, is then the whole volume."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.pipeline.tiles import (
    MOST_TEXT_BYTES,
    SETTING,
    TileError,
    Tiling,
    check_feeds,
    run_tiles,
    tile_of,
)

Feeds = typing.Mapping[str, Any]  # before Python 3.9 that of collections.abc takes no types


def give_back_memory() -> None:
    """Let glibc return what is free to the system; nothing where there is no glibc.

    Tensors of 1 to 32 MiB lie in its heap, whose gaps stay resident: a U-Net in 24 tiles took more than in 12 larger ones.
    """
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class TiledSession:
    """``session`` answers one tile; this one answers whole volumes by ``plan``."""

    def __init__(self, session: Any, plan: Tiling) -> None:
        self.session = session
        self.plan = plan
        self.inputs: Sequence[str] = session.inputs
        self.outputs: Sequence[str] = session.outputs
        self.device: str = session.device
        self.version: str = session.version
        self.memory_note: str = getattr(session, "memory_note", "")

    def run(self, feeds: Feeds, progress: Callable[[int, int], None] = lambda done, of: None) -> dict[str, Any]:
        """See :class:`edgedeploy.runtime.sessions.open.Session`; ``progress`` hears of each tile that is done."""

        def told(done: int, of: int) -> None:
            give_back_memory()
            progress(done, of)

        try:
            return run_tiles(self.session.run, feeds, self.plan, told)
        except TileError as exc:
            raise RuntimeFault("run_failed", str(exc)) from exc

    def executed(self) -> dict[str, int]:
        """Of a tile: every tile runs the same layers."""
        found: dict[str, int] = self.session.executed()
        return found


class ProfiledTiles(TiledSession):
    """Where the runtime tells times of layers: those of one tile, the first of each volume."""

    def profile(self, feeds: Sequence[Feeds]) -> list[dict[str, Any]]:
        """See :class:`edgedeploy.runtime.sessions.open.Profiled`."""
        first = (0,) * len(self.plan.volume)
        for each in feeds:
            check_feeds(each, self.plan)
        layers: list[dict[str, Any]] = self.session.profile([tile_of(each, self.plan, first) for each in feeds])
        return layers


def in_tiles(session: Any, path: Path) -> TiledSession:
    """``session`` by the plan in the file ``path``. Raises :class:`RuntimeFault` ``open_failed`` for a plan that is none."""
    try:
        if path.stat().st_size > MOST_TEXT_BYTES:
            raise TileError(f"{path.name} has more than {MOST_TEXT_BYTES} bytes")
        plan = Tiling.from_text(path.read_text(encoding="utf-8"))
    except (TileError, OSError, UnicodeDecodeError) as exc:
        raise RuntimeFault("open_failed", f"{SETTING}: {exc}") from exc
    return (ProfiledTiles if hasattr(session, "profile") else TiledSession)(session, plan)
