"""What a device remembers of releases: the way back, what is admitted, and files that are no state."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedeploy.runtime.bundle.state import State, read_state, write_state
from edgedeploy.runtime.faults import BundleError

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def test_the_way_back_holds_before_and_after_each_change() -> None:
    """``current`` follows the state; a kill between the two leaves the older ``current`` with the newer state."""
    state = State().activated("net", 1, A, None)
    assert (state.before(None), state.before(A)) == (A, None)
    state = state.activated("net", 2, B, A)
    assert (state.before(A), state.before(B)) == (None, A)
    state = state.activated("net", 3, C, B)
    assert state.history == (A, B, C)
    assert (state.before(B), state.before(C)) == (A, B)
    again = state.activated("net", 3, C, C)
    assert again.history == (B, C) and again.before(C) == B
    back = state.rolled_back(B)
    assert (back.before(C), back.before(B)) == (B, None)
    assert (back.release, back.identity) == (3, C)
    assert back.activated("net", 3, C, B).history == (B, C)


def test_what_is_admitted() -> None:
    state = State().activated("net", 2, B, None)
    state.admit("net", 2, B)
    state.admit("net", 3, C)
    State().admit("any", 1, A)
    for name, release, identity, reason in (
        ("net", 1, A, "downgrade"),
        ("net", 2, C, "downgrade"),
        ("other", 3, C, "incompatible"),
    ):
        with pytest.raises(BundleError) as caught:
            state.admit(name, release, identity)
        assert caught.value.reason == reason


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_state(path) is None
    state = State().activated("net", 2, B, A)
    write_state(path, state)
    assert read_state(path) == state
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 400), put=st.binary(max_size=8), cut=st.integers(0, 400))
def test_a_damaged_state_is_refused_or_is_a_state(
    tmp_path_factory: pytest.TempPathFactory, place: int, put: bytes, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    write_state(path, State().activated("net", 2, B, A))
    text = path.read_bytes()
    path.write_bytes(text[:place] + put + text[place + cut % 5 :][:cut])
    try:
        found = read_state(path)
    except BundleError as exc:
        assert exc.reason == "missing_state"
    else:
        assert found is not None and all("/" not in item for item in found.history)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 60_000, '{"history": ["../../etc"]}', " " * 70_000])
def test_what_is_no_state(text: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(BundleError) as caught:
        read_state(path)
    assert caught.value.reason == "missing_state"


def test_a_history_leads_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_state(path, State().activated("net", 2, B, A))
    path.write_text(path.read_text().replace(A, "../" + A[3:]))
    with pytest.raises(BundleError, match="no identity"):
        read_state(path)
