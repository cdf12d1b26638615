"""Boards that one machine id or one address does not tell apart: clones of an SD card, boards behind one router."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import made_up
import pytest
from board_kit import need_sshd
from fault_kit import local_board, pretended_boots
from sshd_kit import odd_sshd

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import CommandFailed, HostKeyError, Quarantined, SpecError
from edgedeploy.lab.crew import Machines
from edgedeploy.lab.kinds import health_check, require_unchanged

pytestmark = pytest.mark.beside

ONE, TWO = "ssh-ed25519 SHA256:one", "ssh-ed25519 SHA256:two"


def over_ssh(name: str, target: SshTarget, folder: Path, python: str = sys.executable) -> RemoteBoard:
    options = BoardOptions(python=python, root=str(folder / name))
    return RemoteBoard(name, lambda: SshTransport(target), provenance="measured", options=options)


@pytest.mark.fault(49, simulated="one machine as two boards: one machine id, two host keys")
def test_two_host_keys_behind_one_address_are_two_boards(tmp_path: Path) -> None:
    """As behind a router that forwards two ports: one address, one machine id. One in quarantine leaves the other free."""
    need_sshd()
    with odd_sshd() as first, odd_sshd() as second:
        one, two = over_ssh("one", first, tmp_path).probe(), over_ssh("two", second, tmp_path).probe()
        again = over_ssh("the same", first, tmp_path).probe()
        assert one.identity == two.identity and one.host_key != two.host_key
        quarantine = Quarantine(tmp_path / "quarantine")
        quarantine.put(one, "it hung")
        quarantine.check(two)
        with pytest.raises(Quarantined, match="'one'"):
            quarantine.check(again)
        with pytest.raises(CommandFailed, match="host_key"):
            health_check(one)(replace(two, name="one"))
        swapped = replace(first, port=second.port)
        with pytest.raises(HostKeyError):
            SshTransport(swapped)


@pytest.mark.fault(50)
def test_boards_of_one_kernel_take_turns_whatever_their_ids_say(tmp_path: Path) -> None:
    """Containers of one machine have ids of their own, and two SSH servers have two host keys."""
    need_sshd()
    with odd_sshd() as first, odd_sshd() as second:
        infos = [over_ssh("one", first, tmp_path).probe(), over_ssh("two", second, tmp_path).probe()]
    infos += [local_board(tmp_path / "here").probe(), replace(infos[0], identity="a container's")]
    machines = Machines()
    assert len({id(machines.of(info.kernel)) for info in infos}) == 1


@pytest.mark.fault(49, simulated="the source of boot_id")
def test_clones_of_one_card_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """They have one machine id, and each a kernel of its own."""
    (tmp_path / "clone").mkdir()
    boots = pretended_boots(tmp_path / "clone")
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(odd_sshd()) for _ in range(2)]
        one = over_ssh("one", targets[0], tmp_path).probe()
        two = over_ssh("two", targets[1], tmp_path, python=boots.python).probe()
    assert one.identity == two.identity
    machines = Machines()
    assert machines.of(one.kernel) is not machines.of(two.kernel)


@pytest.mark.fault(48, 49)
def test_clone_in_the_place_of_the_board_is_refused() -> None:
    board = made_up.board(host_key=ONE)
    clone = replace(board, host_key=TWO)
    with pytest.raises(CommandFailed, match=f"host_key '{TWO}', not '{ONE}'"):
        health_check(board)(clone)
    with pytest.raises(SpecError, match="not the board that was measured before: host_key"):
        require_unchanged([board], [clone])


@pytest.mark.parametrize("seen", ["", "ssh-rsa SHA256:other"])
def test_host_key_that_cannot_be_compared_does_not_count(seen: str) -> None:
    """A study of an older release, the same board without SSH, or another of a server's keys."""
    board = made_up.board(host_key=ONE)
    assert require_unchanged([replace(board, host_key=seen)], [board]) == ()
    health_check(replace(board, host_key=seen))(board)


def test_serial_numbers_tell_cards_apart_that_share_their_host_key(tmp_path: Path) -> None:
    board = made_up.board(host_key=ONE, serial="1")
    quarantine = Quarantine(tmp_path)
    quarantine.put(board, "it hung")
    quarantine.check(replace(board, serial="2"))
    quarantine.put(replace(board, serial="2"), "it hung too")
    assert len(list(quarantine.records())) == 2


@pytest.mark.parametrize(("before", "now"), [("", ONE), (ONE, ""), (ONE, "ssh-rsa SHA256:other")])
def test_quarantine_holds_however_the_board_is_reached(before: str, now: str, tmp_path: Path) -> None:
    """Put there by an older release, or without SSH; met without SSH, or by another of its keys."""
    quarantine = Quarantine(tmp_path)
    board = made_up.board(host_key=before)
    quarantine.put(board, "it hung")
    with pytest.raises(Quarantined):
        quarantine.check(replace(board, host_key=now))
    quarantine.check(replace(board, identity="another", host_key=now))
    quarantine.lift(board.name)
    quarantine.check(board)
