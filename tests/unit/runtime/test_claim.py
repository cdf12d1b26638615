"""Places and cores of their own: they exclude who names the same ones, and are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgedeploy.boards.open import open_board
from edgedeploy.errors import CommandFailed
from edgedeploy.records.board import BoardInfo
from edgedeploy.runtime.agent import claim
from edgedeploy.runtime.agent.claim import CORES, PLACE, Claim, leased_note, others_at_work


def test_only_who_names_the_same_place_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Claim() as first, Claim() as second, Claim() as elsewhere:
        monkeypatch.setenv(PLACE, f"one {os.getpid()} {id(first)}")
        assert first.take()
        assert not second.take()
        monkeypatch.setenv(PLACE, f"another {os.getpid()} {id(first)}")
        assert elsewhere.take()
    with Claim() as again:
        assert again.take()


def test_a_board_with_a_place_of_its_own_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = {"name": "here", "kind": "local", "root": str(tmp_path)}
    monkeypatch.setenv(PLACE, "mine")
    said = f"{PLACE}=mine is set: others may measure on this machine at the same time"
    assert said in open_board(here).probe().notes
    monkeypatch.delenv(PLACE)
    assert said not in open_board(here).probe().notes


def test_cores_are_kept_apart_from_each_other_and_from_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLACE, f"cores {os.getpid()} {id(monkeypatch)}")
    with Claim((0,)) as first, Claim((1,)) as second, Claim((0, 1)) as both, Claim() as whole:
        assert first.take() and others_at_work((1,)) == [0]
        assert not Claim((0,)).take() and not both.take() and not whole.take()
        assert second.take()
        assert others_at_work((0,)) == ([1] if CORES > 1 else [])
    with Claim() as whole, Claim((0,)) as first:
        assert whole.take()
        assert not first.take()
    with Claim((0,)) as first:
        assert first.take()


@pytest.mark.parametrize("namespace", ["time", "user"])
def test_in_networks_of_their_own_cores_still_wait_for_the_machine(
    namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sockets of two containers do not meet: what both have is the namespace, here a file in its place."""
    monkeypatch.delenv(PLACE, raising=False)
    (tmp_path / namespace).write_text("")
    monkeypatch.setattr(claim, "NAMESPACES", tmp_path)
    monkeypatch.setattr(claim, "MEASURING_SOCKET", f"\0one {tmp_path}")
    with Claim((0,)) as core:
        assert core.take()
        monkeypatch.setattr(claim, "MEASURING_SOCKET", f"\0two {tmp_path}")
        with Claim() as whole, Claim((1,)) as other:
            assert not whole.take()
            assert other.take()


def test_a_board_that_has_some_cores_says_which(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    board = open_board({"name": "here", "kind": "local", "cores": [core], "root": str(tmp_path)})
    found = board.probe()
    assert (found.cores, found.leased_cores, found.power_modes) == (1, (core,), {})
    assert leased_note((core,)) in found.notes
    assert BoardInfo.from_json(found.as_json()) == found
    assert found.seat != found.kernel
    assert (tmp_path / f"cores-{core}").is_dir()


def test_cores_that_it_has_not_are_told(tmp_path: Path) -> None:
    board = open_board({"name": "here", "kind": "local", "cores": [0, 8191], "root": str(tmp_path)})
    with pytest.raises(CommandFailed, match=r"cores \[0, 8191\] are asked for, and it has \[.*cores = \[...\]"):
        board.probe()
