"""What boards do inside the budget while no measurement needs them: they go on with studies that are not finished.

A study is a process of its own, ``edgedeploy search --resume``, which keeps what it has when it is interrupted. It gives way
at once: to a measurement on its board or machine, to any measurement on this host, where a study builds and trains, and to
the end of the budget. It ends with the process that started it, also when that is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from edgedeploy.spec.lab import IdleStudy

LOG: Final = "idle.log"
LEAVE_S: Final = 20.0
"""How long an interrupted study may take to let its board go before it is killed, which it resumes from as well."""

GONE_ON: Final = (0, 1)
"""Exit codes of a study that is over: with a pick, or with its goal not met."""

_LOOK_S: Final = 0.2
_CHILD: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
signal.signal(signal.SIGINT, signal.default_int_handler)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(3)
from edgedeploy.__main__ import main
main()
"""


@dataclass
class _Running:
    study: IdleStudy
    process: subprocess.Popen[bytes]


class Idle:
    """The studies of a lab file. ``base`` is its folder, ``out`` gets their log, ``say`` a line for people. A context: no
    study outlives it."""

    def __init__(self, studies: Sequence[IdleStudy], base: Path, out: Path, say: Callable[[str], None]) -> None:
        self._waiting = list(studies)
        self._base = base
        self._log = out / LOG
        self._say = say
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> Idle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.give_way(list(self._running))

    @property
    def boards(self) -> set[str]:
        """Those at work on a study."""
        return set(self._running)

    def look(self, free: Callable[[str], bool]) -> None:
        """Call it again and again: studies that ended are told, those whose board is not ``free`` any more give way, and a
        board that is free goes on with its first study that is not over."""
        for board, running in list(self._running.items()):
            if running.process.poll() is not None:
                self._ended(board)
        self.give_way([board for board in self._running if not free(board)])
        for study in list(self._waiting):
            if study.board not in self._running and free(study.board):
                self._start(study)

    def rest(self, left_s: Callable[[], float]) -> None:
        """Goes on until nothing is left to do, or the budget is over."""
        while (self._running or self._waiting) and left_s() > 0:
            self.look(lambda board: True)
            time.sleep(min(_LOOK_S, max(0.0, left_s())))
        self.give_way(list(self._running))

    def give_way(self, boards: Sequence[str]) -> None:
        """Interrupts the studies on these boards, and waits until they let them go."""
        for board in boards:
            with suppress(ProcessLookupError):
                os.killpg(self._running[board].process.pid, signal.SIGINT)
        give_up_s = time.monotonic() + LEAVE_S
        for board in boards:
            running = self._running.pop(board)
            try:
                running.process.wait(max(0.0, give_up_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait()
            self._waiting.insert(0, running.study)
            self._say(f"board {board}: {running.study.file} gives way")

    def _start(self, study: IdleStudy) -> None:
        arguments = ["--quiet", "search", study.file, "--out", study.out, "--resume", "--board", study.board]
        self._waiting.remove(study)
        with self._log.open("ab") as log:
            process = self._popen([sys.executable, "-c", _CHILD, str(os.getpid()), *arguments], log)
        self._running[study.board] = _Running(study, process)
        self._say(f"board {study.board} has nothing to measure: it goes on with {study.file}")

    def _popen(self, argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv, cwd=self._base, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def _ended(self, board: str) -> None:
        running = self._running.pop(board)
        code = running.process.returncode
        over = "is over" if code in GONE_ON else f"ended with code {code}, see {self._log}; it goes on another night"
        self._say(f"board {board}: {running.study.file} {over}")
