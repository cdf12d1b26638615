"""A study's folder against a model of what must be in it: random records, kills in the middle of writing, reopenings.

A kill is real: the write happens in a fork of the test, which ends at a drawn step of it without any cleaning up.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import made_up
import made_up_study
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edgedeploy.errors import SpecError
from edgedeploy.files import PARTIAL_PREFIX
from edgedeploy.records.measurement import Failure, Measurement
from edgedeploy.study.store import Store

QUICK = settings(
    max_examples=20,
    stateful_step_count=18,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""The same runs each time: a fault of the store is found or not, and never by chance."""

VARIANTS = [made_up.variant(width=width) for width in (1.0, 0.5, 0.25)]
NUMBERS = st.integers(0, len(VARIANTS) - 1)
SECONDS = st.integers(10, 59)
STEPS = st.sampled_from(["open", "fsync", "replace", "after"])
"""Where a write is cut off: before its file is there, before it is flushed, before it is renamed, after it."""


@cache
def made(number: int) -> Measurement:
    few = {f"case-{index}": {"dice_mean": 0.9} for index in range(3)}
    return made_up.measurement(VARIANTS[number], per_case=few)


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second}+00:00"


def measured(number: int, second: int, kind: str) -> Measurement:
    """Valid, drifted, or of the confirmation split."""
    split = "confirmation" if kind == "confirmation" else "selection"
    cause = "it was hot" if kind == "invalid" else None
    return replace(made(number), created_utc=at(second), valid=cause is None, cause=cause, split=split)


def failed(number: int, second: int) -> Failure:
    return Failure(VARIANTS[number], "BuildError", "build", f"of second {second}", at(second))


def killed_at(step: str, write: Callable[[], None]) -> None:
    """``write``, in a process that dies there as SIGKILL ends one: nothing is cleaned up."""
    child = os.fork()
    if child == 0:
        try:
            if step == "open":
                Path.open = lambda *_, **__: os._exit(9)  # type: ignore[assignment, method-assign]
            elif step == "fsync":
                os.fsync = lambda _: os._exit(9)
            elif step == "replace":
                Path.replace = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign]
            write()
        finally:
            os._exit(9)
    os.waitpid(child, 0)


class StoreMachine(RuleBasedStateMachine):
    """``valid``, ``failures`` and ``confirmed`` are by variant's number; what was written last counts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="edgedeploy-store-")
        self.root = Path(self.folder.name) / "study"
        self.store = made_up_study.new_store(self.root, VARIANTS[:1])
        self.owning = ExitStack()
        self.owning.enter_context(self.store.own())
        self.valid: dict[int, int] = {}
        self.failures: dict[int, int] = {}
        self.confirmed: dict[int, int] = {}
        self.drifted: list[tuple[int, int]] = []
        self.openings: list[str] = []
        self.times: list[int] = []

    def teardown(self) -> None:
        self.owning.close()
        self.folder.cleanup()

    @rule(number=NUMBERS, second=SECONDS, kind=st.sampled_from(["valid", "valid", "invalid", "confirmation"]))
    def keep(self, number: int, second: int, kind: str) -> None:
        self.store.keep(measured(number, second, kind))
        self._kept(number, second, kind)

    def _kept(self, number: int, second: int, kind: str) -> None:
        if kind == "invalid":
            self.drifted.append((number, second))
        else:
            {"valid": self.valid, "confirmation": self.confirmed}[kind][number] = second

    @rule(number=NUMBERS, second=SECONDS, kind=st.sampled_from(["valid", "invalid", "confirmation"]), step=STEPS)
    def keep_and_be_killed(self, number: int, second: int, kind: str, step: str) -> None:
        killed_at(step, lambda: self.store.keep(measured(number, second, kind)))
        if step == "after":
            self._kept(number, second, kind)
        self.reopen()

    @rule(number=NUMBERS, second=SECONDS)
    def keep_failure(self, number: int, second: int) -> None:
        self.store.keep_failure(failed(number, second))
        self.failures[number] = second

    @rule(number=NUMBERS, second=SECONDS, step=STEPS)
    def keep_failure_and_be_killed(self, number: int, second: int, step: str) -> None:
        killed_at(step, lambda: self.store.keep_failure(failed(number, second)))
        if step == "after":
            self.failures[number] = second
        self.reopen()

    @rule(text=st.sampled_from(["end of the search", "once more"]))
    def open_confirmation(self, text: str) -> None:
        self.store.log_opening(text, (VARIANTS[0].digest,))
        self.openings.append(text)

    @rule(duration_ns=st.integers(0, 10**12))
    def add_time(self, duration_ns: int) -> None:
        self.store.add_time("run", "measure", duration_ns, 1)
        self.times.append(duration_ns)

    @precondition(lambda self: self.times or self.openings)
    @rule(bytes_left=st.integers(1, 12), which=st.sampled_from(["account.jsonl", "confirmation/openings.jsonl"]))
    def tear_the_last_line(self, bytes_left: int, which: str) -> None:
        """As a host does that loses its power while a line is appended: of the new line only a beginning is there."""
        path = self.root / which
        if path.exists():
            with path.open("ab") as stream:
                stream.write(b'{"run": "run", "phase": "mea'[:bytes_left])
            self.reopen()

    @rule()
    def reopen(self) -> None:
        """A new process of the study takes the folder."""
        self.owning.close()
        self.store = Store(self.root)
        self.owning.enter_context(self.store.own())
        assert not list(self.root.rglob(f"{PARTIAL_PREFIX}*")), "half a file was left"

    @rule()
    def nobody_else_may_own_it(self) -> None:
        with pytest.raises(SpecError, match="another process"), Store(self.root).own():
            pass

    @invariant()
    def every_record_is_there_and_no_other(self) -> None:
        found = {item.digest: item.created_utc for item in self.store.measurements()}
        assert found == {VARIANTS[number].digest: at(second) for number, second in self.valid.items()}
        drifted = sorted((item.digest, item.created_utc) for item in self.store.invalid())
        assert drifted == sorted((VARIANTS[number].digest, at(second)) for number, second in self.drifted)
        confirmed = {item.digest: item.created_utc for item in self.store.confirmations()}
        assert confirmed == {VARIANTS[number].digest: at(second) for number, second in self.confirmed.items()}
        failures = {item.variant.digest: item.message for item in self.store.failures()}
        assert failures == {VARIANTS[n].digest: f"of second {second}" for n, second in self.failures.items()}

    @invariant()
    def a_variant_is_looked_up_as_it_was_kept(self) -> None:
        for number, variant in enumerate(VARIANTS):
            kept, failure = self.store.measurement(variant.digest), self.store.failure(variant.digest)
            assert (kept and kept.created_utc) == (at(self.valid[number]) if number in self.valid else None)
            assert failure == (failed(number, self.failures[number]) if number in self.failures else None)

    @invariant()
    def variants_come_in_the_order_of_their_outcomes(self) -> None:
        outcomes = [(at(second), VARIANTS[n].digest) for n, second in [*self.valid.items(), *self.failures.items()]]
        assert [variant.digest for variant in self.store.variants()] == [digest for _, digest in sorted(outcomes)]

    @invariant()
    def lines_are_whole_and_in_order(self) -> None:
        assert [entry["reason"] for entry in self.store.openings()] == self.openings
        assert [entry["ns"] for entry in self.store.times()] == self.times


@pytest.mark.fault(4, 14)
def test_the_folder_is_what_its_model_says() -> None:
    run_state_machine_as_test(StoreMachine, settings=QUICK)
