"""A board's own files are not what the agent wrote, over a real sshd: no number comes of them, and the board is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from board_kit import make_job, need_sshd
from fault_kit import local_board
from spoiled_boards import once, spoiling_python

from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.boards.emulated.board import serve
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import CommandFailed
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.records.job import MeasurePlan

pytestmark = pytest.mark.waiting

TIMED = MeasurePlan(queries=8, warmup=1, block=4, cold_starts=1, time_limit_s=60.0)

FORMS = {
    "a false PASS": (
        "result.json",
        'def change(data): return b"&&&& PASSED latency = 3.1 ms\\n"',
        "&&&& PASSED latency",
    ),
    "a state that is none": (
        "status.json",
        "def change(data): return data.replace(b'\"done\"', b'\"passed\"')",
        "state 'passed'",
    ),
    "half of it": ("result.json", "def change(data): return data[: len(data) // 2]", "begins b'{"),
    "no series": (
        "result.json",
        'def change(data):\n    value = json.loads(data)\n    del value["candidate"]["blocks_ns"]\n'
        "    return json.dumps(value).encode()",
        "'blocks_ns' is missing",
    ),
}

NUMBERS = {
    "NaN": "NaN|expected int",
    "Infinity": "Infinity|expected int",
    "0": r"candidate\.blocks_ns\[0\]: 0 ns",
    "-5": r"candidate\.blocks_ns\[0\]: -5 ns",
    "2.5": "expected int",
}


def with_first_time(value: str) -> str:
    return (
        "def change(data):\n    value = json.loads(data)\n"
        '    value["candidate"]["blocks_ns"][0][0] = "HERE"\n'
        f"    return json.dumps(value).replace('\"HERE\"', {value!r}).encode()"
    )


@pytest.fixture(scope="module")
def server() -> Iterator[SshTarget]:
    need_sshd()
    with serve("sshd") as target:
        yield target


@pytest.mark.fault(27, 28)
@pytest.mark.parametrize("form", FORMS)
def test_an_answer_of_another_form_is_shown_and_the_next_one_counts(
    form: str, server: SshTarget, tmp_path: Path
) -> None:
    """It is told with what the board's file says, and a second attempt at the same job gives its numbers."""
    name, change, told = FORMS[form]
    python = spoiling_python(tmp_path, name, once(tmp_path / "spoiled", change))
    board = local_board(tmp_path / "root", lambda: SshTransport(server), python=python)
    heard: list[str] = []
    attempts = Attempts(board, heard.append, Patience(attempts=2, pause_s=0.0))
    _, run = attempts.run(make_job(tmp_path / "job", plan=TIMED), tmp_path)
    assert [told in line for line in heard] == [True], heard
    assert sum(len(block) for block in run.candidate.blocks_ns) == 8 and run.outputs is not None


@pytest.mark.fault(17)
@pytest.mark.parametrize("value", NUMBERS)
def test_a_time_that_no_clock_gives_is_refused_by_its_own_name(value: str, server: SshTarget, tmp_path: Path) -> None:
    """What is refused is that number: the same run without it gives metrics."""
    python = spoiling_python(tmp_path, "result.json", once(tmp_path / "spoiled", with_first_time(value)))
    board = local_board(tmp_path / "root", lambda: SshTransport(server), python=python)
    job = make_job(tmp_path / "job", plan=TIMED)
    with board.session() as session:
        with pytest.raises(CommandFailed, match=NUMBERS[value]):
            board_metrics(session.measure(job, tmp_path).candidate, None, job.candidate.artifact)
        metrics, _ = board_metrics(session.measure(job, tmp_path).candidate, None, job.candidate.artifact)
    assert metrics["latency_p50_ns"] > 0
