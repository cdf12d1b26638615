"""The lease of a board against a model of who may have it: random holders, silences, kills, reboots, late returns."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from lease_holders import Boot, Holder

from edgedeploy.runtime import processes
from edgedeploy.runtime.agent import lease
from edgedeploy.runtime.agent.lease import check_token
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import Root, read_json

QUICK = settings(
    max_examples=25,
    stateful_step_count=15,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""The same runs each time: a fault of the lease is found or not, and never by chance."""


class LeaseMachine(RuleBasedStateMachine):
    """``held`` is the only process that may hold the board, ``token`` the last one granted, ``jobs`` those that may run."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="edgedeploy-lease-")
        self.root = Root(Path(self.folder.name) / "root")
        self.boot = Boot()
        self.boot.installed()
        self.held: Holder | None = None
        self.owner = ""
        self.token = 0
        self.granted_in = ""
        self.jobs: set[str] = set()

    def teardown(self) -> None:
        if self.held is not None:
            self.held.kill()
        self.folder.cleanup()

    @rule(owner=st.sampled_from("abc"))
    def take(self, owner: str) -> None:
        asked = Holder(self.root.folder, owner)
        if self.held is not None:
            assert asked.fault == ("busy", f"held by {self.owner} (lease {self.token})")
            return
        self.token += 1
        assert asked.granted is not None, asked.fault
        assert (asked.granted["token"], asked.granted["owner"]) == (self.token, owner)
        self.held, self.owner, self.granted_in, self.jobs = asked, owner, self.boot(), set()

    @precondition(lambda self: self.token > 0)
    @rule(back=st.integers(0, 2), owner=st.sampled_from("abc"))
    def resume(self, back: int, owner: str) -> None:
        """A holder comes back with its token, or with one that is outdated."""
        token = max(1, self.token - back)
        replaced = self.held is not None and token == self.token
        busy = self.held is not None and not replaced
        asked = Holder(self.root.folder, owner, wait_s=0.0 if busy else 60.0, resume=token)
        if replaced and self.held is not None:
            self.held.end()
            self.held = None
        if busy:
            assert asked.fault is not None and asked.fault[0] == "busy"
        elif self.granted_in != self.boot():
            assert asked.fault is not None and asked.fault[0] == "rebooted"
        elif token != self.token:
            assert asked.fault is not None and asked.fault[0] == "lease_lost"
        else:
            assert asked.granted is not None and asked.granted["token"] == token, asked.fault
            self.held, self.owner = asked, owner

    @precondition(lambda self: self.held is not None)
    @rule(how=st.sampled_from(["release", "close", "fall_silent", "kill"]))
    def leave(self, how: str) -> None:
        assert self.held is not None
        getattr(self.held, how)()
        self.held = None
        if how == "release":
            self.jobs = set()

    @precondition(lambda self: self.held is not None)
    @rule()
    def beat(self) -> None:
        assert self.held is not None
        self.held.say(b"beat\n")

    @rule()
    def reboot(self) -> None:
        """Every process of the board ends; its disk stays."""
        if self.held is not None:
            self.held.kill()
            self.held = None
        self.boot.number += 1

    @rule(back=st.integers(0, 2))
    def start_job(self, back: int) -> None:
        token = self.token - back
        if self.held is not None and token == self.token:
            check_token(self.root, token)
            job = self.root.job(uuid.uuid4().hex)
            job.mkdir(parents=True)
            self.jobs.add(job.name)
            return
        with pytest.raises(RuntimeFault) as caught:
            check_token(self.root, token)
        assert caught.value.cause == "stale_token"

    @invariant()
    def the_board_knows_its_last_lease(self) -> None:
        kept = read_json(self.root.lease) or {}
        assert kept.get("token", 0) == self.token
        if self.held is not None:
            assert (kept["owner"], kept["holder"]["pid"], kept["boot_id"]) == (self.owner, self.held.pid, self.boot())

    @invariant()
    def only_jobs_of_the_last_lease_are_left(self) -> None:
        assert {path.name for path in self.root.jobs.glob("*")} == self.jobs


@pytest.fixture
def own_boot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's holders change it."""
    monkeypatch.setattr(lease, "boot_id", lease.boot_id)
    monkeypatch.setattr(processes, "boot_id", processes.boot_id)
    yield


@pytest.mark.fault(9, 10, 11, 12, simulated="the passing of time, the source of boot_id")
def test_the_lease_is_what_its_model_says(own_boot: None) -> None:
    run_state_machine_as_test(LeaseMachine, settings=QUICK)
