"""From a board's table in a study file to the board."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.arm.board import EmulatedArmBoard
from edgedeploy.boards.arm.image import ARM_MACHINES
from edgedeploy.boards.emulated.board import EmulatedBoard
from edgedeploy.boards.labgrid import Place
from edgedeploy.boards.local import LocalTransport
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.openssh import NO_SSH, find_ssh
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.boards.x86.board import MACHINE as X86_MACHINE
from edgedeploy.boards.x86.board import EmulatedX86Board
from edgedeploy.errors import SpecError, nearest
from edgedeploy.interfaces.board import Board
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.spec.boards import DEFAULT_PORT, DEFAULT_ROOT, MACHINES

BOARD_KINDS: Final = ("local", "ssh", "emulated")


def open_board(config: Mapping[str, object], sessions: Sequence[PackedSession] = ()) -> Board:
    """The board that one ``[[boards]]`` table describes, without connecting to it. Keys that are None count as left out.
    ``sessions`` are those of other packages' targets that the board is to run.

    Raises ``SpecError`` for an unknown kind, or a missing ``name``, ``kind`` or ``host``; ``TargetUnavailable`` for a
    place of a labgrid where labgrid is not installed.
    """
    given = {key: value for key, value in config.items() if value is not None}
    name, kind = _text(given, "name"), _text(given, "kind")
    if kind not in BOARD_KINDS:
        raise SpecError(f"board {name!r}: kind = {kind!r}", "there is no such kind", nearest(kind, BOARD_KINDS))
    if "machine" in given:
        return _emulated_processor(name, str(given["machine"]), _optional(given, "python"), tuple(sessions))
    place = Place.find(str(given["labgrid"]), _optional(given, "labgrid_coordinator")) if "labgrid" in given else None
    cores = tuple(int(str(core)) for core in _words(given.get("cores", ())))
    root = str(given.get("root", DEFAULT_ROOT))
    options = BoardOptions(
        python=str(given.get("python") or ("python3" if kind == "ssh" else sys.executable)),
        root=f"{root}/cores-{'-'.join(map(str, cores))}" if cores else root,
        power_mode=tuple((key, str(given[key])) for key in ("governor", "nvpmodel") if key in given),
        power_cycle=_words(given.get("power_cycle", ())) or (place.power_cycle if place else ()),
        sessions=tuple(sessions),
        cores=cores,
    )
    reserve = partial(place.held, options.wait_s) if place else nullcontext
    if kind == "local":
        return RemoteBoard(name, LocalTransport, provenance="measured", options=options, reserve=reserve)
    if kind == "emulated":
        return EmulatedBoard(name, server=str(given.get("server", "auto")), options=options)
    target = SshTarget(
        host=_text(given, "host"),
        port=int(str(given.get("port", DEFAULT_PORT))),
        user=_optional(given, "user"),
        identity=_optional(given, "identity"),
        known_hosts=_optional(given, "known_hosts"),
    )
    return RemoteBoard(
        name,
        lambda: SshTransport(target),
        provenance="measured",
        options=options,
        notes=() if find_ssh() else (NO_SSH,),
        reserve=reserve,
    )


def _text(given: Mapping[str, object], key: str) -> str:
    if key not in given:
        raise SpecError(f"board {given.get('name', '?')!r}: {key}", "it is missing", f"Write {key} = ...")
    return str(given[key])


def _emulated_processor(name: str, machine: str, python: str | None, sessions: tuple[PackedSession, ...]) -> Board:
    """An emulated Arm board has the interpreter of its image, and no other."""
    if machine == X86_MACHINE:
        return EmulatedX86Board(name, python or sys.executable, sessions)
    for known in ARM_MACHINES:
        if machine == known:
            return EmulatedArmBoard(name, known, sessions)
    raise SpecError(f"board {name!r}: machine", f"there is no machine {machine!r}", nearest(machine, MACHINES))


def _optional(given: Mapping[str, object], key: str) -> str | None:
    return str(given[key]) if key in given else None


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(word) for word in value) if isinstance(value, (list, tuple)) else ()
