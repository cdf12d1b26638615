"""Looks at files by forks of a process that is ready: each has its limits, and none is worse off than a process would be."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from board_kit import conv_model
from fault_kit import wait_for

from edgedeploy.errors import DataError
from edgedeploy.reference import ready as ready_module
from edgedeploy.reference import safety
from edgedeploy.reference.ready import Ready
from edgedeploy.reference.safety import Limits, check_onnx

pytestmark = pytest.mark.beside

LIMITS = Limits(memory_bytes=3 << 30, cpu_s=7)
HANGS_S = 300.0
"""What takes longer hangs: a machine with much other work may stop a process for long."""


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ready]:
    """One of the test's own, which ends with it."""
    found = Ready()
    monkeypatch.setattr(safety, "ready", found)
    monkeypatch.setattr(safety, "_found_sound", set())
    yield found
    found.forget()


def look(ready: Ready, code: str, limits: Limits = LIMITS, patience_s: float | None = HANGS_S) -> Any:
    argv = [sys.executable, "-P", "-c", code, "an", "argument"]
    with Path(__file__).open("rb") as source:
        return ready.run(argv, asdict(limits), source.fileno(), {**os.environ, "SAID": "so"}, patience_s)


def server(ready: Ready) -> int:
    assert ready._server is not None
    return ready._server.process.pid


WHAT_IT_HAS = """
import json, os, resource, socket, sys
try:
    socket.socket()
    network = "open"
except OSError as exc:
    network = type(exc).__name__
held = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in ("AS", "CPU", "FSIZE", "CORE")]
files = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
first = sys.stdin.readline() if sys.stdin.seekable() else ""
print(json.dumps([sys.argv, os.getcwd(), os.environ["SAID"], network, held, len(files), first, "numpy" in sys.modules]))
"""


def test_a_look_has_its_limits_its_input_and_nothing_of_another(ready: Ready) -> None:
    for _ in range(2):
        argv, folder, said, network, held, files, first, imported = json.loads(look(ready, WHAT_IT_HAS).stdout)
        assert argv == ["-c", "an", "argument"] and folder == "/" and said == "so"
        assert network == "PermissionError"
        assert held == [3 << 30, 7, 0, 0]
        assert files == 3, "standard streams alone: no link to whoever asks"
        assert first == Path(__file__).read_text().splitlines(keepends=True)[0]
        assert imported


def test_every_look_is_another_process_and_who_is_ready_the_same(ready: Ready) -> None:
    asked = "import os; print(os.getpid()); here = globals().get('here', 0) + 1; print(here)"
    pids = set()
    for _ in range(3):
        pid, here = look(ready, asked).stdout.split()
        assert here == b"1"
        pids |= {int(pid), server(ready)}
    assert len(pids) == 4


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise MemoryError('too much')", 1), ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV), ("x = 1", 0)],
)
def test_how_a_look_ended_is_told(ready: Ready, code: str, status: int) -> None:
    done = look(ready, code)
    assert done.returncode == status
    assert (b"MemoryError: too much" in done.stderr) == (status == 1)


def test_a_look_that_takes_too_much_processor_time_is_ended_by_its_limit(ready: Ready) -> None:
    assert look(ready, "while True: pass", Limits(memory_bytes=3 << 30, cpu_s=1)).returncode == -signal.SIGXCPU


def test_who_is_no_longer_waited_for_is_ended(ready: Ready) -> None:
    look(ready, "x = 1")
    with pytest.raises(subprocess.TimeoutExpired):
        look(ready, "import time; time.sleep(3000)", patience_s=0.5)
    assert server(ready)
    wait_for("its look to be gone", lambda: not forks_of(server(ready)))


def forks_of(pid: int) -> list[int]:
    """Those that are left of it, directly or below."""
    try:
        below = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return below + [child for one in below for child in forks_of(one)]


def test_more_than_a_pipe_holds_comes_back(ready: Ready) -> None:
    done = look(ready, "import os, sys; os.write(2, b'e' * 50); sys.stdout.write('x' * 3_000_000)")
    assert done.stdout == b"x" * 3_000_000 and done.stderr == b"e" * 50


def test_one_that_was_killed_keeps_nobody_from_looking(ready: Ready, tmp_path: Path) -> None:
    conv_model(tmp_path / "model.onnx")
    check_onnx(tmp_path / "model.onnx")
    first = server(ready)
    os.kill(first, signal.SIGKILL)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="it is no ONNX model"):
        check_onnx(tmp_path / "bad.onnx")
    assert look(ready, "x = 1") is not None and server(ready) != first


@pytest.mark.parametrize("patience_s", [HANGS_S, None])
def test_one_that_is_stopped_keeps_nobody_from_looking(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, patience_s: float | None
) -> None:
    """The file had been blamed after minutes, and a case that is run with patience waited for ever."""
    look(ready, "x = 1")
    assert ready._server is not None
    stopped = ready._server.process
    os.kill(stopped.pid, signal.SIGSTOP)
    monkeypatch.setattr(ready_module, "TAKEN_UP_S", 0.3)
    started = ThreadPoolExecutor(1).submit(look, ready, "x = 1", LIMITS, patience_s)
    try:
        assert started.result(HANGS_S) is None, "a process of its own looks"
        assert stopped.wait(HANGS_S) == -signal.SIGKILL
    finally:
        stopped.kill()
    monkeypatch.undo()
    assert look(ready, "x = 1") is not None and server(ready) != stopped.pid


def test_a_look_that_nobody_waits_on_any_more_is_ended(ready: Ready) -> None:
    """It would read on from the very stream that another process begins anew."""
    look(ready, "x = 1")
    wait_for("whoever waited for that to be gone", lambda: not forks_of(server(ready)))
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(look, ready, "import time; time.sleep(3000)")
        wait_for("its look to be there", lambda: len(forks_of(server(ready))) == 2)
        keeper, looking = forks_of(server(ready))
        os.kill(keeper, signal.SIGKILL)
        assert done.result(HANGS_S) is None
    wait_for("it to be gone", lambda: has_ended(looking))


def test_a_look_ends_with_whoever_asked_for_it() -> None:
    """It had gone on to the end of its processor time, or for ever where it only waited."""
    asks = (
        "import os, sys; from dataclasses import asdict; from edgedeploy.reference.ready import ready; "
        "from edgedeploy.reference.safety import Limits; "
        "argv = [sys.executable, '-P', '-c', 'import time; time.sleep(3000)']; "
        "ready.run(argv, asdict(Limits()), os.open(os.devnull, os.O_RDONLY), {**os.environ}, None)"
    )
    asker = subprocess.Popen([sys.executable, "-c", asks])
    try:
        wait_for("its look to be there", lambda: len(forks_of(asker.pid)) == 3)
        started = forks_of(asker.pid)
    finally:
        asker.kill()
        asker.wait()
    wait_for("all of them to be gone", lambda: all(map(has_ended, started)))


def test_no_look_begins_where_whoever_asked_is_gone(ready: Ready) -> None:
    """Killed before it was known who looks, they left a look that nobody would end."""
    look(ready, "x = 1")
    assert ready._server is not None
    code = "import time; print('looks', flush=True); time.sleep(3000)"
    order = json.dumps({"argv": ["-c", code], "limits": asdict(LIMITS), "environ": {**os.environ}})
    (out, writing), (asked, told) = os.pipe(), os.pipe()
    os.close(asked)
    with Path(os.devnull).open("rb") as nothing:
        socket.send_fds(ready._server.link, [order.encode()], [nothing.fileno(), writing, writing, told])
    os.close(writing)
    os.close(told)
    with os.fdopen(out, "rb") as said:
        assert select.select([said], [], [], HANGS_S)[0], "it goes on"
        assert said.read1() == b"", "it has begun"


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_where_none_can_be_made_ready_looks_go_on(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready_module, "child_command", lambda module: [sys.executable, "-c", "raise SystemExit(1)"])
    conv_model(tmp_path / "model.onnx")
    check_onnx(tmp_path / "model.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="it is no ONNX model"):
        check_onnx(tmp_path / "bad.onnx")


def test_another_import_path_has_another(ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network may need modules that lie beside it."""
    look(ready, "x = 1")
    before = server(ready)
    monkeypatch.syspath_prepend(str(tmp_path))
    look(ready, "x = 1")
    assert server(ready) != before


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    conv_model(tmp_path / "model.onnx")
    code = (
        "import os, sys; from pathlib import Path; from edgedeploy.reference.safety import check_onnx, ready; "
        "check_onnx(Path(sys.argv[1])); print(ready._server.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.onnx")], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    wait_for("it to end", lambda: not is_there(pid))


def is_there(pid: int) -> bool:
    try:
        return bool(
            Path(f"/proc/{pid}/cmdline").read_bytes()
        )  # of one that has ended and was not waited for it is empty
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_it_ends_when_nothing_is_asked_of_it(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = "import edgedeploy.reference.ready_child as it; it.IDLE_S = 0.2; it.main()"
    paths = f"import sys; sys.path[:] = {[path for path in sys.path if path]!r}"
    monkeypatch.setattr(ready_module, "child_command", lambda module: [sys.executable, "-c", f"{paths}; {soon}"])
    wait_for("a look by it, which may be over before it is asked", lambda: look(ready, "x = 1"))
    before = server(ready)
    wait_for("it to end", lambda: not is_there(before))
    monkeypatch.undo()
    assert look(ready, "print(1)") is not None and server(ready) != before


def test_threads_ask_side_by_side(ready: Ready) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda number: look(ready, f"import time; time.sleep(0.2); print({number})"), range(12))]
    assert [int(done.stdout) for done in found] == [*range(12)]


def test_a_fork_does_not_ask_its_parents(ready: Ready) -> None:
    look(ready, "x = 1")
    before = server(ready)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ready.forget()  # as os.register_at_fork has it for the one of the process
            look(ready, "x = 1")
            os.write(tell, str(server(ready)).encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told) as said:
        assert int(said.read()) != before
    assert look(ready, "x = 1") is not None and server(ready) == before
