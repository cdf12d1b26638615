"""Boards that flood and drip: what they send is bounded in size and time, over every transport."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_kit import TRANSPORTS, open_transport

from edgedeploy.boards.drain import MOST_LINE_BYTES, MOST_OUTPUT_BYTES
from edgedeploy.errors import CommandFailed, Unreachable

pytestmark = pytest.mark.beside


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Iterator[Any]:
    with open_transport(request.param) as found:
        yield found


@pytest.mark.fault(51)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_command_that_floods_is_cut_off(stream: str, transport: Any) -> None:
    code = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    tracemalloc.start()
    try:
        with pytest.raises(CommandFailed, match=f"more than {MOST_OUTPUT_BYTES} bytes"):
            transport.run([sys.executable, "-c", code], timeout_s=300.0)
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST_OUTPUT_BYTES
    finally:
        tracemalloc.stop()
    assert transport.run(["echo", "on"], timeout_s=60.0).stdout == b"on\n"  # the connection stays


@pytest.mark.fault(51)
def test_a_line_without_an_end_is_cut_off(transport: Any) -> None:
    process = transport.start([sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 65536)"])
    try:
        with pytest.raises(CommandFailed, match=f"more than {MOST_LINE_BYTES} bytes"):
            process.read_line(300.0)
    finally:
        threading.Thread(target=process.close, daemon=True).start()


DRIP = "import sys, time\nwhile True:\n sys.stdout.write('x'); sys.stdout.flush(); time.sleep(0.02)"


@pytest.mark.fault(51)
def test_a_peer_that_drips_is_given_up_at_the_lines_deadline(transport: Any) -> None:
    """Every byte used to begin the wait anew: such a peer was listened to for as long as it went on."""
    process = transport.start([sys.executable, "-c", DRIP])
    heard = threading.Event()

    def listen() -> None:
        with pytest.raises(Unreachable, match=r"none within 0\.5 s"):
            process.read_line(0.5)
        heard.set()

    listener = threading.Thread(target=listen, daemon=True)
    started_s = time.monotonic()
    listener.start()
    assert heard.wait(60.0), f"still listening after {time.monotonic() - started_s:.0f} s"
    threading.Thread(target=process.close, daemon=True).start()


@pytest.mark.fault(51)
def test_a_file_that_is_larger_than_was_said_is_not_fetched(transport: Any, tmp_path: Path) -> None:
    (tmp_path / "remote").write_bytes(bytes(1 << 20))
    with pytest.raises(CommandFailed, match="more than 1000 bytes"):
        transport.get(str(tmp_path / "remote"), tmp_path / "back", timeout_s=60.0, limit_bytes=1000)
    assert (tmp_path / "back").stat().st_size <= 1000
    transport.get(str(tmp_path / "remote"), tmp_path / "back", timeout_s=60.0, limit_bytes=1 << 20)
    assert (tmp_path / "back").stat().st_size == 1 << 20
