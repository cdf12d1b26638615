"""Servers that are not who they were, not there, or there and silent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import make_job, need_sshd
from fault_kit import agent_pace_s, local_board, wait_for
from restarted_sshd import restarted_sshd

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.emulated.board import make_key, serve
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import HostKeyError, Unreachable
from edgedeploy.runtime.processes import with_argument

pytestmark = pytest.mark.waiting

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@pytest.fixture(scope="module", params=["embedded", "sshd"])
def server(request: pytest.FixtureRequest) -> Iterator[SshTarget]:
    if request.param == "sshd":
        need_sshd()
    with serve(request.param) as target:
        yield target


@contextlib.contextmanager
def frozen(target: SshTarget) -> Iterator[None]:
    """Every process of an embedded server stops, as on a board that hangs: its sockets stay open and say nothing."""
    pids = with_argument(str(target.home))
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.fault(31)
def test_changed_host_key_stops_with_both_fingerprints(server: SshTarget, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[{server.host}]:{server.port} {make_key(tmp_path / 'other')}\n")
    with pytest.raises(HostKeyError) as caught:
        SshTransport(replace(server, known_hosts=str(known_hosts)))
    on_record, shown = FINGERPRINT.findall(caught.value.asked), FINGERPRINT.findall(caught.value.found)
    assert len(on_record) == len(shown) == 1 and on_record != shown
    assert f"ssh-keygen -R '[{server.host}]:{server.port}'" in caught.value.remedy


@pytest.mark.fault(31)
def test_unknown_host_key_stops_and_is_not_written_down(server: SshTarget, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[elsewhere]:22 {make_key(tmp_path / 'other')}\n")
    before = known_hosts.read_text()
    with pytest.raises(HostKeyError, match="none is on record") as caught:
        SshTransport(replace(server, known_hosts=str(known_hosts)))
    assert FINGERPRINT.search(caught.value.found)
    assert f"ssh-keyscan -p {server.port} {server.host} >> {known_hosts}" in caught.value.remedy
    assert known_hosts.read_text() == before


def test_wrong_client_key_names_the_key_and_the_remedy(server: SshTarget, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    with pytest.raises(Unreachable, match="accepts none of the keys") as caught:
        SshTransport(replace(server, identity=str(tmp_path / "stranger")))
    assert str(tmp_path / "stranger") in caught.value.found
    assert f"ssh-copy-id -i {tmp_path / 'stranger'}" in caught.value.remedy


def test_file_that_is_no_key_is_named(server: SshTarget, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("not a key")
    with pytest.raises(Unreachable, match="notes"):
        SshTransport(replace(server, identity=str(tmp_path / "notes")))


def test_closed_port_is_unreachable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unreachable, match=str(port)):
        SshTransport(SshTarget(host="127.0.0.1", port=port))


@pytest.mark.fault(3)
def test_server_that_accepts_and_says_nothing_is_unreachable() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Unreachable):
            SshTransport(SshTarget(host="127.0.0.1", port=silent.getsockname()[1]), connect_timeout_s=0.5)


OPERATIONS: dict[str, Callable[[SshTransport, Path], object]] = {
    "run": lambda t, folder: t.run(["true"], timeout_s=0.5),
    "put": lambda t, folder: t.put(folder / "source", str(folder / "remote"), timeout_s=0.5),
    "get": lambda t, folder: t.get(str(folder / "source"), folder / "back", timeout_s=0.5),
    "read": lambda t, folder: t.read_bytes(str(folder / "source"), timeout_s=0.5),
    "write": lambda t, folder: t.write_bytes(str(folder / "remote"), b"x", timeout_s=0.5),
}


@pytest.mark.fault(3)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_frozen_sshd_is_noticed_in_every_operation(operation: str, tmp_path: Path) -> None:
    """A real sshd whose processes all stop. The connection is not used again after that, also when the board thaws."""
    need_sshd()
    (tmp_path / "source").write_bytes(os.urandom(8 << 20))
    with restarted_sshd() as server:
        transport = SshTransport(server.target)
        assert transport.read_bytes("/etc/hostname", timeout_s=10)
        with server.frozen():
            started_s = time.monotonic()
            with pytest.raises(Unreachable, match=r"0\.5 s"):
                OPERATIONS[operation](transport, tmp_path)
            assert time.monotonic() - started_s < 20
        with pytest.raises(Unreachable):
            OPERATIONS[operation](transport, tmp_path)
        transport.close()
        again = SshTransport(server.target)
        assert again.run(["true"], timeout_s=10).exit_status == 0
        again.close()


@pytest.mark.fault(3)
@pytest.mark.parametrize("operation", ["put", "get", "read"])
def test_dripping_peer_is_noticed_by_the_time_limit(operation: str, tmp_path: Path) -> None:
    """A link to a real sshd over which two bytes come in each tenth of a second: it is never still, and never done."""
    need_sshd()
    (tmp_path / "source").write_bytes(os.urandom(1 << 20))
    with restarted_sshd() as server, Dripping(server.target.port) as link:
        transport = SshTransport(link.to(server.target))
        assert transport.read_bytes("/etc/hostname", timeout_s=10)
        link.drip()
        started_s = time.monotonic()
        with pytest.raises(Unreachable, match=r"0\.5 s"):
            OPERATIONS[operation](transport, tmp_path)
        assert time.monotonic() - started_s < 20
        transport.close()


@pytest.mark.fault(3)
def test_peer_that_drips_its_greeting_is_unreachable(tmp_path: Path) -> None:
    need_sshd()
    with restarted_sshd() as server, Dripping(server.target.port) as link:
        link.drip()
        started_s = time.monotonic()
        with pytest.raises(Unreachable):
            SshTransport(link.to(server.target), connect_timeout_s=1.0)
        assert time.monotonic() - started_s < 20


class Dripping:
    """A port in front of an sshd. From :meth:`drip` on, what the server says comes in drops."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._slow = threading.Event()
        self._over = threading.Event()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Dripping:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for item in (self._listening, *self._sockets):
            item.close()

    def to(self, target: SshTarget) -> SshTarget:
        """The same server, by the port in front of it."""
        port = self._listening.getsockname()[1]
        known = Path(target.known_hosts or "").read_text(encoding="ascii").replace(f":{target.port} ", f":{port} ")
        place = Path(target.known_hosts or "").with_name("known_hosts_dripping")
        place.write_text(known, encoding="ascii")
        return replace(target, port=port, known_hosts=str(place))

    def drip(self) -> None:
        self._slow.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, drops: bool) -> None:
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                slow = self._slow.is_set()
                data = source.recv(2 if slow and drops else 1 << 16)
                if not data:
                    break
                sink.sendall(data)
                if slow:
                    time.sleep(0.1)
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.fault(3)
def test_board_that_freezes_is_given_up_and_works_again_later(tmp_path: Path) -> None:
    limit_s = max(2.0, 10 * agent_pace_s())
    with serve("embedded") as target:
        options = BoardOptions(
            python=sys.executable,
            root=str(tmp_path / "root"),
            command_timeout_s=limit_s,
            reconnects=1,
            reconnect_pause_s=0,
        )
        board = RemoteBoard(
            "frozen",
            lambda: SshTransport(target, connect_timeout_s=2 * limit_s),
            provenance="emulated",
            options=options,
        )
        job = make_job(tmp_path / "job")
        with board.session() as session, frozen(target), pytest.raises(Unreachable):
            session.measure(job, tmp_path)
        with local_board(tmp_path / "root", lambda: SshTransport(target)).session() as session:
            assert session.measure(job, tmp_path).outputs is not None


@pytest.mark.fault(4)
def test_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom edgedeploy.boards.emulated.board import serve\n"
        "with serve('auto') as t:\n    print(t.port, flush=True)\n    time.sleep(60)\n"
    )
    repo = Path(__file__).resolve().parents[3]
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=repo)
    assert host.stdout is not None
    port = int(host.stdout.readline())
    socket.create_connection(("127.0.0.1", port), timeout=60).close()
    host.kill()
    host.wait()
    host.stdout.close()

    def refuses() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return True
        return False

    wait_for("the server to end with the process that it belongs to", refuses, 60)
