"""How an emulated board is reached, by several threads at once."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from edgedeploy.boards.emulated.board import own_port, reach, session_folder
from edgedeploy.boards.emulated.sshd_config import server_config
from edgedeploy.runtime.agent.claim import PLACE


def test_who_connects_while_another_does_never_finds_the_host_key_gone() -> None:
    with session_folder("edgedeploy-reach-") as folder:
        known, over = Path(reach(folder, 2022, "root").known_hosts or ""), threading.Event()

        def connect() -> None:
            while not over.is_set():
                reach(folder, 2022, "root")

        thread = threading.Thread(target=connect)
        thread.start()
        try:
            found = {known.read_bytes() for _ in range(500)}
        finally:
            over.set()
            thread.join()
    assert len(found) == 1 and found != {b""}


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("", "SetEnv SHLVL=1"),
        ("tests-7", f"SetEnv SHLVL=1 {PLACE}=tests-7"),
        ("two words\nPermitRootLogin yes", "SetEnv SHLVL=1"),
    ],
)
def test_agents_behind_a_server_measure_in_the_place_of_who_starts_it(
    place: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, place)
    lines = server_config(Path("folder"), 2022).splitlines()
    assert [found for found in lines if found.startswith(("SetEnv", "PermitRootLogin"))] == [
        "PermitRootLogin prohibit-password",
        line,
    ]


def test_a_port_is_held_until_its_server_listens_and_while_it_is_away() -> None:
    with own_port() as port:
        place = ("127.0.0.1", port)
        for _ in range(2):  # it is started, ends, and is started again
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(place)
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(place)
            with socket.create_server(place) as server, socket.create_connection(place) as client:
                link, _ = server.accept()
                link.sendall(b"here")
                link.close()
                assert client.recv(4) == b"here"
