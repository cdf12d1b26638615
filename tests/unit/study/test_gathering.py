"""Boards at the start of a run: which are waited for."""

from __future__ import annotations

import socket

import pytest

from edgedeploy.boards.ssh import links
from edgedeploy.errors import UnknownHost, Unreachable
from edgedeploy.spec.boards import BoardTable
from edgedeploy.study import gathering
from edgedeploy.study.gathering import Found, gather

CART = BoardTable(name="cart", kind="ssh", host="crat-3.lab", away="60 s")
UNKNOWN = UnknownHost("connect to crat-3.lab", "no host is known by that name", "Check how it is spelt")


class Boards:
    """A board that answers after so many failures."""

    def __init__(self, failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self._failures = failures
        monkeypatch.setattr(gathering, "PAUSE_S", 0.0)

    def open_it(self, table: BoardTable) -> Found:
        self.asked += 1
        if self.asked <= self._failures:
            raise UNKNOWN
        return object(), object()  # type: ignore[return-value]


def test_a_name_that_no_host_has_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    boards = Boards(3, monkeypatch)
    with pytest.raises(UnknownHost, match="Check how it is spelt"):
        gather([CART], boards.open_it, lambda line: None)
    assert boards.asked == 1


def test_a_board_that_was_reached_before_keeps_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    boards = Boards(3, monkeypatch)
    assert len(gather([CART], boards.open_it, lambda line: None, ["cart"]).here) == 1
    assert boards.asked == 4


@pytest.mark.parametrize(("errno", "kind"), [(socket.EAI_NONAME, UnknownHost), (socket.EAI_AGAIN, socket.gaierror)])
def test_a_name_server_that_does_not_answer_says_nothing_of_the_name(
    errno: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unresolved(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "as the resolver says it")

    monkeypatch.setattr(socket, "create_connection", unresolved)
    hop = type("Hop", (), {"host": "crat-3.lab", "port": 22, "proxy_command": ""})()
    with pytest.raises(kind) as caught:
        links._socket_to(hop, None, 1.0)
    assert isinstance(caught.value, Unreachable) == (kind is UnknownHost)
