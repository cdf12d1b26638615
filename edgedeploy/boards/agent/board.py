"""A board behind any transport: connect, hold, upload what is missing, start, wait, collect. Every step may be repeated."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from edgedeploy.boards.agent import answers
from edgedeploy.boards.agent.client import AgentClient
from edgedeploy.boards.agent.session import BoardOptions, Link, RemoteSession
from edgedeploy.errors import Unreachable
from edgedeploy.interfaces.board import Transport
from edgedeploy.records.board import BoardInfo, Provenance
from edgedeploy.spec.public import without

BOOT_LIMIT_S: Final = 300.0


class RemoteBoard:
    """A :class:`~edgedeploy.interfaces.board.Board` over the transport that ``connect`` opens."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Transport],
        *,
        provenance: Provenance,
        options: BoardOptions | None = None,
        notes: tuple[str, ...] = (),
        reserve: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``reserve`` is held around each session and each turning off and on: what a lab asks for before its board is
        used. It may wait, and raises ``Busy``."""
        self.name = name
        self.provenance: Provenance = provenance
        self._connect = connect
        self._options = options or BoardOptions()
        self._notes = notes
        self._reserve = reserve
        self.has_power_control = bool(self._options.power_cycle)

    def power_cycle(self) -> None:
        """Turn the board off and on by its power control. Raises ``Unreachable`` when it has none, or does not come back."""
        asked = f"board {self.name!r}: turn it off and on"
        command = self._options.power_cycle
        if not command:
            raise Unreachable(asked, "it has no power control", "Name one in its table: power_cycle = [...]")
        try:
            with self._reserve():
                done = subprocess.run(list(command), capture_output=True, timeout=BOOT_LIMIT_S, check=False)
        except OSError as exc:
            raise Unreachable(asked, f"its power_cycle command: {exc.strerror or type(exc).__name__}") from None
        except subprocess.TimeoutExpired:  # which quotes the whole command, passwords too
            raise Unreachable(asked, f"its power_cycle command did not end within {BOOT_LIMIT_S:g} s") from None
        if done.returncode != 0:
            said = without(
                done.stderr.decode("utf-8", errors="replace").strip(), sorted(command, key=len, reverse=True)
            )
            raise Unreachable(asked, f"its power_cycle command ended with status {done.returncode}: {said[-300:]}")
        give_up_s = time.monotonic() + BOOT_LIMIT_S
        while True:
            try:
                self.probe()
                return
            except Unreachable:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(2.0)

    def probe(self) -> BoardInfo:
        """Connect, look, disconnect. Raises ``BoardError``."""
        with contextlib.closing(self._connect()) as transport:
            return self._info(self._agent(transport).call("probe"), transport)

    @contextlib.contextmanager
    def session(self) -> Iterator[RemoteSession]:
        """Connect and hold the board; raises ``Busy`` when somebody else holds it past the wait."""
        started_ns = time.monotonic_ns()
        with self._reserve(), contextlib.closing(Link(self._connect, self._agent, self._options)) as link:
            info = self._info(link.lease.probe, link.transport)
            yield RemoteSession(info, link, self._options, wait_ns=time.monotonic_ns() - started_ns)

    def _agent(self, transport: Transport) -> AgentClient:
        options = self._options
        return AgentClient.install(
            transport,
            board=self.name,
            python=options.python,
            root=options.root,
            timeout_s=options.command_timeout_s,
            sessions=options.sessions,
            cores=options.cores,
        )

    def _info(self, probe: Mapping[str, Any], transport: Transport) -> BoardInfo:
        found = answers.probe(f"board {self.name!r}: what it is", probe)
        emulated = self.provenance == "emulated"
        shared = emulated or found.leased_cores  # with others, for whom no mode may be changed
        own = {
            "name": self.name,
            "provenance": self.provenance,
            "notes": (*self._notes, *found.notes),
            "power_modes": {} if shared else found.power_modes,
            "host_key": "" if emulated else getattr(transport, "host_key", ""),  # new for each emulation
        }
        return BoardInfo(**{**vars(found), **own})
