"""Servers that are not who they were, not there, or there and silent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import make_job, need_sshd
from fault_kit import agent_pace_s

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.emulated.board import make_key, serve
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import HostKeyError, Unreachable
from edgedeploy.runtime.processes import with_argument

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


@pytest.mark.fault(3)
def test_frozen_peer_is_noticed_in_every_operation(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(8 << 20))
    with serve("embedded") as target:
        operations = {
            "run": lambda t: t.run(["true"], timeout_s=0.5),
            "put": lambda t: t.put(source, str(tmp_path / "remote"), timeout_s=0.5),
            "get": lambda t: t.get(str(source), tmp_path / "back", timeout_s=0.5),
            "read": lambda t: t.read_bytes(str(source), timeout_s=0.5),
            "write": lambda t: t.write_bytes(str(tmp_path / "remote"), b"x", timeout_s=0.5),
        }
        for name, operation in operations.items():
            transport = SshTransport(target)
            transport.read_bytes("/etc/hostname", timeout_s=10)
            with frozen(target):
                started_s = time.monotonic()
                with pytest.raises(Unreachable, match=r"0\.5 s"):
                    operation(transport)
                assert time.monotonic() - started_s < 20, name
            with pytest.raises(Unreachable):
                operation(transport)
            transport.close()


@pytest.mark.fault(3)
def test_board_that_freezes_is_given_up_and_works_again_later(tmp_path: Path) -> None:
    limit_s = max(0.5, 5 * agent_pace_s())
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
        with board.session() as session:
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
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    host.kill()
    host.wait()
    host.stdout.close()
    give_up_s = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return
        assert time.monotonic() < give_up_s, "the server outlives the process that it belongs to"
        time.sleep(0.02)
