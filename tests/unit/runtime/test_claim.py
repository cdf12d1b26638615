"""A place of its own: it excludes who names the same one, and is told."""

from __future__ import annotations

import pytest

from edgedeploy.boards.open import open_board
from edgedeploy.runtime.agent.claim import PLACE, Claim


def test_only_who_names_the_same_place_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Claim() as first, Claim() as second, Claim() as elsewhere:
        monkeypatch.setenv(PLACE, f"one {id(first)}")
        assert first.take()
        assert not second.take()
        monkeypatch.setenv(PLACE, f"another {id(first)}")
        assert elsewhere.take()
    with Claim() as again:
        assert again.take()


def test_a_board_with_a_place_of_its_own_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLACE, "mine")
    said = f"{PLACE}=mine is set: others may measure on this machine at the same time"
    assert said in open_board({"name": "here", "kind": "local"}).probe().notes
    monkeypatch.delenv(PLACE)
    assert said not in open_board({"name": "here", "kind": "local"}).probe().notes
