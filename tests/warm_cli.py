"""The command line as processes that need not import everything anew: ``[*warm_cli.command(), "search", ...]``; and
LiteRT's converter the same way: ``[*warm_cli.converter(), JOB, RESULT]``.

A server imports what commands use, once in a test run, and forks for each command; the fork has the arguments, folder,
environment and standard streams of whoever asked, and its exit status goes back. Workers of one run share the servers: the
first that needs one starts it, and it ends with the run. What is tested is a process of its own with
the code of ``python -m edgedeploy``, or of ``python -m edgedeploy.targets.litert.tool``. Tests of how a process starts, of
terminals, and those that kill it start a real one.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

START_LIMIT_S: Final = 300.0
UP: Final = b"up\n"
SCRIPT: Final = "--script"


@dataclass(frozen=True)
class Run:
    """A test run of several workers: where their servers are, and the process that all of them belong to."""

    folder: Path
    pid: int


shared: Run | None = None
"""Set in each worker by ``conftest.py``. It is no environment variable: tests start test runs of their own."""


def command() -> tuple[str, ...]:
    """What to put before the arguments of a command."""
    return _served("edgedeploy")


def interpreter() -> tuple[str, ...]:
    """What to put before the text of a program in Python: it finds imported what commands import."""
    return (*command(), "-c")


def script() -> tuple[str, ...]:
    """The same for the name of a file of Python, with its arguments."""
    return (*command(), SCRIPT)


def converter() -> tuple[str, ...]:
    """What to put before the converter's job."""
    return _served("converter")


@functools.cache
def _served(program: str) -> tuple[str, ...]:
    if shared is None:
        return _asking(_start(program, Path(tempfile.mkdtemp(prefix="edgedeploy-warm-"))))
    folder = shared.folder / program
    with (shared.folder / f"{program}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "socket").exists():
            folder.mkdir(exist_ok=True)
            _start(program, folder, shared.pid)
    return _asking(folder / "socket")


def _asking(place: Path) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(Path(__file__).with_name("warm_client.py")), str(place))


def _start(program: str, folder: Path, owner: int | None = None) -> Path:
    """The socket of a new server, which ends with the process ``owner``, or with this one."""
    place = folder / "socket"
    repo = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repo), os.environ.get("PYTHONPATH", "")])}
    server = subprocess.Popen(
        [sys.executable, __file__, program, str(place), *([] if owner is None else [str(owner)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("wb"),
        env=environment,
        cwd=folder,
    )
    assert server.stdout is not None and server.stdin is not None
    ready, _, _ = select.select([server.stdout], [], [], START_LIMIT_S)
    assert ready and server.stdout.readline() == UP, (folder / "log").read_text()

    atexit.register(server.stdin.close)  # one without an owner ends when nobody holds the other end
    return place


# -- the server


def serve(program: str, place: str, owner: str = "") -> None:
    watched = os.pidfd_open(int(owner)) if owner else 0
    gc.disable()  # nothing of what is imported is garbage
    {"edgedeploy": import_all, "converter": import_converter}[program]()
    gc.freeze()  # what is imported stays shared with the forks
    gc.enable()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(place)
        listening.listen(64)
        os.write(1, UP)
        keepers: set[int] = set()
        while True:
            ready, _, _ = select.select([listening, watched], [], [], 0.5)
            keepers -= {pid for pid in keepers if os.waitpid(pid, os.WNOHANG)[0]}
            if watched in ready and (owner or not os.read(0, 1)):
                shutil.rmtree(Path(place).parent)
                return
            if listening in ready:
                link, _ = listening.accept()
                pid = os.fork()
                if pid == 0:
                    try:
                        listening.close()
                        os._exit(keep(program, link))
                    finally:
                        os._exit(1)
                keepers.add(pid)
                link.close()


def import_all() -> None:
    """What a search, and commands that read its folder, import; nothing is started by it."""
    import alembic.command
    import alembic.runtime.migration  # noqa: F401
    import jinja2  # noqa: F401
    import nncf  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript.function_libs.torch_lib.ops  # noqa: F401
    import openvino  # noqa: F401
    import optuna.storages._rdb.models
    import optuna.storages._rdb.storage  # noqa: F401
    import paramiko  # noqa: F401
    import plotly  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import sqlalchemy.dialects.sqlite.pysqlite
    import sqlalchemy.orm  # noqa: F401
    import torch._dynamo.callback
    import torch._inductor.metrics
    import torch.onnx._internal.exporter._core  # noqa: F401
    import torch_pruning  # noqa: F401

    import edgedeploy
    import edgedeploy.cli.app
    import edgedeploy.targets.litert.target
    import edgedeploy.targets.onnxruntime.target
    import edgedeploy.targets.openvino.target
    import edgedeploy.targets.tensorrt.target

    for name in edgedeploy.__all__:
        getattr(edgedeploy, name)
    export_once()


def export_once() -> None:
    """What is made at the first export: the exporter reads the source of all operators and lists their decompositions."""
    import kept_registry
    import torch

    from edgedeploy.reference.export import _quiet_exporter

    kept_registry.keep()
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU()).eval()
    with tempfile.TemporaryDirectory() as folder, _quiet_exporter():
        path = Path(folder) / "once.onnx"
        torch.onnx.export(network, (torch.zeros(1, 1, 8, 8),), str(path), dynamo=True, verbose=False)


def import_converter() -> None:
    """What a conversion imports; its messages go to the server's log."""
    import ai_edge_quantizer.quantizer
    import ai_edge_quantizer.recipe_manager  # noqa: F401
    import kept_registry
    import litert_torch  # noqa: F401

    import edgedeploy.targets.litert.tool  # noqa: F401

    kept_registry.keep()


def keep(program: str, link: socket.socket) -> int:
    """In a fork of the server: start what is asked for in another one, and tell how it ended."""
    head, streams, _, _ = socket.recv_fds(link, 4, 3)
    asked = json.loads(_read(link, int.from_bytes(head, "big")))
    child = os.fork()
    if child == 0:
        link.close()
        run(program, asked, streams)
    for descriptor in streams:
        os.close(descriptor)
    watched = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([watched, link], [], [])
        if watched in ready:
            break
        number = link.recv(1)
        os.kill(child, number[0] if number else signal.SIGKILL)  # who asked is gone
        if not number:
            break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    link.sendall(status.to_bytes(4, "big", signed=True))
    return 0


def _read(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise EOFError("whoever asked was gone before all was said")
        data += piece
    return data


def run(program: str, asked: dict[str, Any], streams: list[int]) -> None:
    """As ``python -m`` would; it does not come back."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv = [program, *asked["argv"]]
    sys.path[0] = asked["cwd"]
    if threads := os.environ.get("OMP_NUM_THREADS"):  # as where torch is loaded anew
        sys.modules["torch"].set_num_threads(int(threads))
    status = 0
    try:
        if program == "converter":
            from edgedeploy.targets.litert.tool import main as convert

            status = convert(*asked["argv"])
        elif sys.argv[1:2] == ["-c"]:
            exec(compile(asked["argv"][1], "<string>", "exec"), {"__name__": "__main__"})
        elif sys.argv[1:2] == [SCRIPT]:
            sys.argv = asked["argv"][1:]
            sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            from edgedeploy.__main__ import main

            main()
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(*sys.argv[1:])
