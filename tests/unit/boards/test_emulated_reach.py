"""How an emulated board is reached, by several threads at once."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from edgedeploy.boards.emulated.board import kept_port, reach, session_folder
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


def test_a_port_is_kept_for_the_server_that_is_to_come() -> None:
    """Two boards that began at the same time had been given one port, and the second one's user met the first one's key."""
    with kept_port() as port, socket.socket() as other, socket.socket() as server:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        socket.create_connection(("127.0.0.1", port)).close()


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
