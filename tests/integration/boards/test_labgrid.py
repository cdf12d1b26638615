"""Boards that are places of a real labgrid: a coordinator and an exporter of their own on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from board_kit import OUTPUTS_ONLY, make_job
from fault_kit import wait_for

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.labgrid import Place, labgrid_client
from edgedeploy.boards.local import LocalTransport
from edgedeploy.boards.open import open_board
from edgedeploy.errors import Busy, CommandFailed, EdgeDeployError, TargetUnavailable, Unreachable

pytestmark = pytest.mark.beside
OTHER = "somebody"
HOLD = """
import sys, time
from edgedeploy.boards.labgrid import Place
with Place.find(sys.argv[1], sys.argv[2]).held(30):
    print("held", flush=True)
    time.sleep(600)
"""


@dataclass
class Lab:
    address: str
    switched: list[str]

    def client(self, *arguments: str, user: str = OTHER) -> str:
        argv = [labgrid_client(), "-x", self.address, "-p", "cart", *arguments]
        environment = {**os.environ, "LG_USERNAME": user}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout

    def holder(self) -> str | None:
        (line,) = [line for line in self.client("show").splitlines() if line.strip().startswith("acquired:")]
        held = line.partition(":")[2].strip()
        return None if held == "None" else held.partition("/")[2]

    def board(self, root: Path, wait_s: float = 60.0) -> RemoteBoard:
        place = Place.find("cart", self.address)
        options = BoardOptions(python=sys.executable, root=str(root), wait_s=wait_s, power_cycle=place.power_cycle)
        return RemoteBoard(
            "cart", LocalTransport, provenance="measured", options=options, reserve=lambda: place.held(wait_s)
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def switch(switched: list[str]) -> HTTPServer:
    """A power socket that is switched over HTTP, and remembers it."""

    class Socket(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            switched.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return HTTPServer(("127.0.0.1", 0), Socket)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A labgrid with the place ``cart``, whose power socket is a server of this test."""
    try:
        programs = Path(labgrid_client()).parent
    except TargetUnavailable as exc:
        pytest.skip(str(exc))
    folder = tmp_path_factory.mktemp("labgrid")
    switched: list[str] = []
    found = Lab(f"127.0.0.1:{free_port()}", switched)
    with ExitStack() as stack:
        power = stack.enter_context(switch(switched))
        threading.Thread(target=power.serve_forever, daemon=True).start()
        stack.callback(power.shutdown)
        address = f"http://127.0.0.1:{power.server_address[1]}"
        port = {"model": "simplerest", "host": f"{address}/{{index}}/{{value}}", "index": 0}
        (folder / "exporter.yaml").write_text(json.dumps({"cart": {"NetworkPowerPort": port}}))

        def start(name: str, *arguments: str) -> None:
            with (folder / f"{name}.log").open("wb") as log:
                argv = [str(programs / name), *arguments]
                process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)

        def listens() -> bool:
            host, _, port = found.address.partition(":")
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
                return True
            return False

        start("labgrid-coordinator", "-l", found.address)
        wait_for("the coordinator", listens)
        start("labgrid-exporter", "-c", found.address, "-n", "bench", "exporter.yaml")
        wait_for("the exporter's resource", lambda: "NetworkPowerPort" in found.client("resources"))
        found.client("create")
        found.client("add-match", "bench/cart/NetworkPowerPort")
        yield found


def test_the_place_is_ours_for_a_session_and_free_after_it(lab: Lab, tmp_path: Path) -> None:
    board = lab.board(tmp_path / "root")
    with board.session() as session:
        holder = lab.holder()
        assert session.measure(make_job(tmp_path / "job", plan=OUTPUTS_ONLY), tmp_path).outputs is not None
    assert holder is not None
    assert holder.endswith("-edgedeploy")
    assert lab.holder() is None
    with pytest.raises(KeyboardInterrupt), board.session():
        raise KeyboardInterrupt
    assert lab.holder() is None


def test_somebody_elses_place_is_waited_for_and_then_busy(lab: Lab, tmp_path: Path) -> None:
    """Waiting is no running time; the error names who holds it, and the place stays theirs."""
    lab.client("acquire")
    with pytest.raises(Busy, match=OTHER), lab.board(tmp_path / "root", wait_s=0.5).session():
        pass
    assert lab.holder() == OTHER
    later = threading.Timer(1.5, lab.client, ["release"])
    later.start()
    with lab.board(tmp_path / "root").session() as session:
        phases_ns = session.measure(make_job(tmp_path / "job", plan=OUTPUTS_ONLY), tmp_path).phases_ns
    later.join()
    assert phases_ns["wait"] > 1e9


def test_a_killed_holders_place_is_taken_over(lab: Lab, tmp_path: Path) -> None:
    """While it lives, another process of the same user waits for it."""
    argv = [sys.executable, "-c", HOLD, "cart", lab.address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=f"process {process.pid}"), lab.board(tmp_path / "root", wait_s=0.2).session():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert str(lab.holder()).endswith("-edgedeploy")
    with lab.board(tmp_path / "root").session():
        pass
    assert lab.holder() is None


def test_power_goes_through_the_place(lab: Lab, tmp_path: Path) -> None:
    table = {"name": "cart", "kind": "local", "root": str(tmp_path), "labgrid": "cart"}
    board = open_board({**table, "labgrid_coordinator": lab.address})
    assert isinstance(board, RemoteBoard)
    assert board.has_power_control
    board.power_cycle()
    assert lab.switched == ["/0/0", "/0/1"]
    assert lab.holder() is None


def test_what_labgrid_refuses_is_said(lab: Lab) -> None:
    with pytest.raises(CommandFailed, match="nowhere matches nothing"), Place.find("nowhere", lab.address).held(1.0):
        pass
    place = replace(Place.find("cart", lab.address), coordinator=f"127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match="connect"), place.held(1.0):
        pass


def test_without_labgrid_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(EdgeDeployError) as caught:
        open_board({"name": "cart", "kind": "local", "labgrid": "cart"})
    assert isinstance(caught.value, TargetUnavailable)
    assert "pip install 'edgedeploy[lab]'" in str(caught.value)
