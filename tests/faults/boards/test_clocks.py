"""The wall clock may jump: no duration comes from it, and what it did during a run is recorded."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgedeploy
from edgedeploy.runtime.sensors.environment import BackgroundMeter

PACKAGE = Path(edgedeploy.__file__).parent
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}

ALLOWED = {
    ("boards/care/quarantine.py", "put"): "since when, for people",
    ("boards/ssh/certificates.py", "check_certificate"): "the dates between which a certificate is valid",
    ("report/tracking.py", "_write"): "when it was logged, for people: MLflow's time stamps",
    ("runtime/bundle/commands.py", "_now"): "the last day of a bundle, by the device's date",
    ("runtime/sensors/environment.py", "_read"): "the skew itself",
    ("search/history.py", "_set_aside"): "a name for a file that is moved aside",
    ("study/events.py", "utc_text"): "when it happened, for people",
    ("study/store.py", "utc_now"): "when it was made, for people",
}
"""The functions in which the wall clock is read, and for what. None subtracts one reading from another but the skew's."""


def wall_clock_calls(source: str) -> Iterator[tuple[str, int]]:
    """Functions and lines that read the wall clock, by whatever name it was imported, or pass it on to be read."""
    tree = ast.parse(source)
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            aliases.update({item.asname or item.name: f"{node.module}.{item.name}" for item in node.names})
        elif isinstance(node, ast.Import):
            aliases.update({item.asname or item.name: item.name for item in node.names})
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name | ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        name, _, rest = ast.unparse(node).partition(".")
        full = ".".join(part for part in (aliases.get(name, name), rest) if part)
        if any(full == clock or full.endswith(f".{clock}") for clock in WALL_CLOCKS):
            around = [item for item in functions if item.lineno <= node.lineno <= (item.end_lineno or 0)]
            yield max(around, key=lambda item: item.lineno).name if around else "", node.lineno


@pytest.mark.fault(13)
def test_no_duration_comes_from_the_wall_clock() -> None:
    """Each function that reads it is known, with what for: a second reading in the same module is not."""
    found = {
        (str(path.relative_to(PACKAGE)), function): line
        for path in sorted(PACKAGE.rglob("*.py"))
        for function, line in wall_clock_calls(path.read_text(encoding="utf-8"))
    }
    assert set(found) == set(ALLOWED), f"the wall clock is read in {found}"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "from time import time\ntime()",
        "import time as t\nt.time_ns()",
        "from datetime import datetime as d\nd.now()",
        "import datetime\ndatetime.datetime.now()",
        "import time\nclock = time.time",
    ],
)
def test_the_search_for_wall_clocks_finds_them(source: str) -> None:
    assert list(wall_clock_calls(source)) == [("", 2)]
    assert list(wall_clock_calls("import time\ndef f():\n  def g(): pass\n  def h():\n    return time.time()")) == [
        ("h", 5)
    ]
    assert list(wall_clock_calls("import time\ntime.monotonic_ns(); time.perf_counter()")) == []


@pytest.mark.fault(13, simulated="the wall clock's jump")
@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_jump_is_recorded_and_changes_no_duration(jump_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own clock is left alone: only what this process is told jumps."""
    meter = BackgroundMeter(lambda: 0)
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(jump_s * 1e9))
    time.sleep(0.3)  # of the kernel's ticks of 10 ms, a single one in no time at all would be hundreds of cores
    found = meter.stop()
    assert found["clock_skew_ns"] == pytest.approx(jump_s * 1e9, abs=2e9)
    assert 0 <= found["background_cpu_share"] <= 64
