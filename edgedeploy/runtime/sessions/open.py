"""Opens an artifact in its own runtime. The backend is imported here and nowhere earlier."""

from __future__ import annotations

import importlib
import importlib.metadata
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.pipeline.tiles import SETTING
from edgedeploy.runtime.sessions.sources import SessionSource, known

Feeds = typing.Mapping[str, Any]  # before Python 3.9 that of collections.abc takes no types


class Session(Protocol):
    """A model that is loaded and ready. A protocol because each backend brings its own.

    ``device`` names what ran it, ``version`` the backend's release. One that keeps its network outside the process's memory
    says so in ``memory_note``: the process's peak is then no answer to what the network needs.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    device: str
    version: str

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """One inference: arrays by input name in, arrays by output name out (the caller's own memory).

        Raises :class:`RuntimeFault` (``run_failed``, ``memory_exceeded``).
        """

    def executed(self) -> dict[str, int]:
        """Compute layers (convolutions, matrix products, recurrent layers) by the precision that really ran, such as
        ``{"int8": 40, "float32": 1}``; what else there is to count, :mod:`~edgedeploy.runtime.sessions.counting` says."""


@runtime_checkable
class Profiled(Protocol):
    """A session that can tell what each of its layers took. A protocol of its own because not every runtime can."""

    def profile(self, feeds: Sequence[Feeds]) -> list[dict[str, Any]]:
        """What ran, in the order it ran: ``name``, ``operator``, ``kernel``, the ``device`` or provider it ran on, ``ns``
        (median over all feeds but the first) and ``sources``, the names under which the runtime knows what it fused.

        A second session is opened for it, because profilers slow a session down.
        """


def import_runtime(target: str, told: Callable[[str], None] = lambda name: None) -> None:
    """Import what ``target`` runs on, before any artifact is touched: a process that dies here dies of the board's
    installation. ``told`` gets the name of each package before it is imported.

    A session's module says how in ``import_runtime()``; one without it imports its runtime when it opens an artifact.
    Raises :class:`RuntimeFault`: ``runtime_missing``, ``runtime_broken``, ``disk_full``.
    """
    source = known().get(target)
    if source is None:
        return  # open_session says so
    runtime = next((name for name in source.packages if installed(name)), source.packages[0])
    for package in ("numpy", runtime):
        told(package)
        try:
            module = importlib.import_module("numpy" if package == "numpy" else source.module)
            getattr(module, "import_runtime", _nothing)()
        except Exception as exc:  # binary packages raise whatever they like
            fault = from_exception(exc, "runtime_broken")
            cause = "runtime_broken" if fault.cause == "memory_exceeded" else fault.cause
            raise RuntimeFault(cause, f"importing {package}: {fault.message}") from exc


def _nothing() -> None:
    """For a session that imports its runtime when it opens an artifact."""


def installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def open_session(
    target: str,
    folder: Path,
    entry: str,
    settings: Mapping[str, str],
    threads: int,
    source: SessionSource | None = None,
) -> Session:
    """Load ``folder/entry``. ``settings`` are the artifact's own and go to the backend as they are, but for a plan of tiles,
    by which the session then answers whole volumes; ``source`` is the target's declaration, the table's row when it is not
    given.

    Raises :class:`RuntimeFault`: ``runtime_missing`` (no such backend here), ``runtime_broken``, ``open_failed``,
    ``memory_exceeded``.
    """
    source = source or known().get(target)
    if source is None:
        raise RuntimeFault("runtime_missing", f"no session for target {target!r}; known: {', '.join(sorted(known()))}")
    path = folder / entry
    if not path.is_file():
        raise RuntimeFault("open_failed", f"{path} does not exist")
    try:
        module = importlib.import_module(source.module)
        own = {name: settings[name] for name in settings if name != SETTING}
        if SETTING in settings:
            own.update(getattr(module, "IN_TILES", {}))
        session = module.open_model(path, own, threads)
        if SETTING in settings:
            from edgedeploy.runtime.sessions.tiles import in_tiles

            session = in_tiles(session, folder / Path(settings[SETTING]).name)
        return cast(Session, session)
    except Exception as exc:  # a backend's own exceptions have no common base
        raise from_exception(exc, "open_failed") from exc
