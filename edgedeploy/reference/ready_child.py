"""The process that is ready: see :mod:`.ready`. It looks at nothing itself; each fork of it looks at one file and ends."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from edgedeploy.reference.ready import ENDED, LOOKS
from edgedeploy.reference.safety import Limits, hold

IDLE_S: Final = 60.0
MOST_BYTES: Final = 1 << 20
"""Of an order; a larger one does not go through the link."""

LOOKED_WITH: Final = (
    *("numpy", "onnx", "edgedeploy.reference.take_in_child"),
    *("edgedeploy.reference.clean", "edgedeploy.reference.apart"),
)
"""Without ONNX Runtime, which starts a thread when it is imported: a fork would not have it."""


def main() -> None:
    link = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks ends: then so does this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in LOOKED_WITH:
        with contextlib.suppress(Exception):  # the look that needs it says what is missing
            importlib.import_module(name)
    gc.freeze()  # what is imported stays shared with the forks
    link.settimeout(IDLE_S)
    with contextlib.suppress(TimeoutError):
        while True:
            order, files, _, _ = socket.recv_fds(link, MOST_BYTES, 4)
            if len(files) < 4:  # whoever asked is gone
                return
            if os.fork() == 0:
                link.close()
                _keep(json.loads(order), files)
            for end in files:
                os.close(end)


def _keep(order: dict[str, Any], files: Sequence[int]) -> NoReturn:
    """Start the look in another fork, and tell how it ended."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if child == 0:
            _look(order, files)
        *streams, told = files
        for end in streams:
            os.close(end)
        os.write(told, ENDED.pack(child, _ended(child, told)))
    finally:
        os._exit(0)


def _ended(child: int, told: int) -> int:
    """Its exit status. It is killed when nobody is left who could be told: whoever asked was killed."""
    with contextlib.suppress(OSError):  # a kernel before 5.3
        end = os.pidfd_open(child)
        watching = select.poll()
        watching.register(end, select.POLLIN)
        watching.register(told, 0)  # for the error alone, which is always told
        if end not in dict(watching.poll()):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _look(order: dict[str, Any], files: Sequence[int]) -> NoReturn:
    """As ``python -P ARGV...`` would, with the limits of the order. It tells its id first: one that nobody knows of could
    not be ended, and where nobody is left who could be told it ends here."""
    status = 1
    try:
        os.write(files[-1], LOOKS.pack(os.getpid()))
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number, end in enumerate(files[:3]):
            os.dup2(end, number)
        for end in files:
            os.close(end)
        sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
        os.chdir("/")
        os.environ.clear()
        os.environ.update(order["environ"])
        hold(Limits(**order["limits"]))
        first, *rest = order["argv"]
        if first == "-c":
            text, *rest = rest
            sys.argv = [first, *rest]
            exec(text, {"__name__": "__main__"})  # noqa: S102  # our own words: ``ready.child_command``
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
        sys.stdout.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)
