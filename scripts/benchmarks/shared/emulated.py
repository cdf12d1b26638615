"""What agent, lease and lab share: an emulated SSH board on loopback, by the tests' own kits, and how repeats are told."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ROOT, parser_of

sys.path.insert(0, str(ROOT / "tests"))  # board_kit and fault_kit

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.emulated.board import find_sshd, serve
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.boards.ssh.transport import SshTransport


def board_at(target: SshTarget, folder: Path) -> RemoteBoard:
    options = BoardOptions(python=sys.executable, root=str(folder / "root"))
    return RemoteBoard("b", lambda: SshTransport(target), provenance="emulated", options=options)


@contextmanager
def server() -> Iterator[tuple[SshTarget, Path]]:
    """The system's sshd, or the embedded server where there is none, and a folder for the board."""
    kind = "sshd" if find_sshd() is not None else "embedded"
    with tempfile.TemporaryDirectory(prefix="edgedeploy-bench-") as name, serve(kind) as target:
        yield target, Path(name)


def repeats_parser(name: str, text: str | None, repeats: int) -> argparse.ArgumentParser:
    parser = parser_of(name, text)
    parser.add_argument("-n", "--repeats", type=int, default=repeats, help=f"how often to do it ({repeats})")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    return parser


def say_times(name: str, values: Sequence[float]) -> None:
    median, slowest = statistics.median(values), max(values)
    sys.stdout.write(f"      {name}: median {median:.3f} s, slowest {slowest:.3f} s of {len(values)}\n")


def say_bar(holds: bool, text: str) -> bool:
    sys.stdout.write(f"{'ok  ' if holds else 'FAIL'}  {text}\n")
    return holds
