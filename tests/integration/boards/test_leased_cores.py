"""Cores of one machine, leased apart: who has others measures meanwhile, and the numbers say so."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import ENDLESS, MACHINE_WAIT_S, make_job
from fault_kit import local_board, running_jobs, wait_for

from edgedeploy.errors import Busy, EdgeDeployError
from edgedeploy.runtime.processes import end_all_with_argument
from edgedeploy.study.limits import lease_notes

pytestmark = [pytest.mark.waiting, pytest.mark.usefixtures("machine_place")]

SHORT = replace(ENDLESS, queries=64, block=8)


def test_two_boards_measure_at_once_where_their_cores_are_apart(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("this process has one core")
    one = local_board(tmp_path / "one", cores=(cores[0],), unchanged_s=0.5)
    two = local_board(tmp_path / "two", cores=(cores[1],))
    same = local_board(tmp_path / "same", cores=(cores[0],), wait_s=0.5)
    whole = local_board(tmp_path / "whole", wait_s=0.5)

    def measure() -> None:
        with one.session() as session, contextlib.suppress(EdgeDeployError):
            session.measure(make_job(tmp_path / "first", plan=ENDLESS), tmp_path)

    measuring = threading.Thread(target=measure)
    measuring.start()
    wait_for("the first board to measure", lambda: running_jobs(tmp_path / "one"), MACHINE_WAIT_S)
    try:
        with two.session() as session:
            found = session.measure(make_job(tmp_path / "second", plan=SHORT), tmp_path)
        assert found.environment["leased"] == {"cores": [cores[1]], "others": [cores[0]]}
        assert found.environment["cores"] == {"candidate": [cores[1]]}
        assert found.environment["energy"]["missing"].startswith("the board has some cores")
        told = f"measured on core {cores[1]} of the board's machine while others measured on core {cores[0]}"
        assert lease_notes(found.environment) == (told,)
        for board, what in ((same, f"core {cores[0]} of this machine"), (whole, "this machine")):
            with board.session() as session, pytest.raises(Busy, match=f"busy: {what} was measuring for another board"):
                session.measure(make_job(tmp_path / board.probe().seat.replace(" ", "-"), plan=SHORT), tmp_path)
    finally:
        end_all_with_argument(running_jobs(tmp_path / "one")[0])
        measuring.join()


@pytest.mark.parametrize(
    "told", [None, [0], {}, {"cores": []}, {"cores": "01"}, {"cores": [0.5]}, {"cores": {"0": 1}, "others": None}]
)
def test_what_no_agent_says_is_no_note(told: object) -> None:
    assert lease_notes({"leased": told}) == ()
