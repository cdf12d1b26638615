"""The code blocks of README and docs, and how a test runs them.

A page is a script: its blocks run from top to bottom in one folder of its own. An HTML comment directly above a block, which
no reader sees, says what is not the usual:

- ``<!-- folder: examples/NAME -->`` at any place: the page's folder begins as a copy of ``docs/examples/NAME``;
- ``<!-- file: NAME -->``: the block becomes that file of the folder;
- ``<!-- exit: N or M -->``: the block's last command ends with one of these codes (a busy machine makes a measurement
  invalid, which is 4);
- ``<!-- not run: WHY -->``: the block needs what no test has. Commands of edgedeploy in it are still held against its
  options.

``sh`` blocks are run by bash, ``python`` blocks by Python, ``toml`` blocks without a name are parts of a study file;
``text``, ``json`` and ``csv`` blocks are shown, not run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import warm_cli
from made_up_study import TOLERANT
from markdown_it import MarkdownIt

REPO: Final = Path(__file__).resolve().parents[1]
RUN: Final = ("sh", "python", "toml")
SHOWN: Final = ("text", "json", "csv")
PAGE_LIMIT_S: Final = 900.0
_COMMENT: Final = re.compile(r"<!--\s*(folder|file|exit|not run):\s*(.*?)\s*-->", re.DOTALL)

SMALLER: Final[Mapping[str, str]] = {
    r"^trials = \d+": "trials = 2",
    r'^wall_clock = "[^"]+"': 'wall_clock = "5 min"',
}
"""What is smaller in a study file when a test runs it, besides :data:`TOLERANT`."""

QUERIES: Final = {False: 64, True: 664}
"""Timed queries without and with a p99, which is stated from 662 on."""


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    file: str | None = None
    exit_codes: tuple[int, ...] = (0,)
    not_run: str | None = None


@dataclass(frozen=True)
class Page:
    name: str
    folder: str | None
    blocks: tuple[Block, ...]


def read_page(path: Path) -> Page:
    """The fenced blocks of a page with what the comments above them say."""
    said: dict[str, str] = {}
    folder = None
    blocks = []
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type == "html_block":
            said = dict(_COMMENT.findall(token.content))
            folder = said.pop("folder", folder)
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            words = token.info.split()
            blocks.append(
                Block(
                    language=words[0] if words else "",
                    text=token.content,
                    line=token.map[0] + 1,
                    file=said.get("file"),
                    exit_codes=tuple(int(code) for code in said.get("exit", "0").split(" or ")),
                    not_run=said.get("not run"),
                )
            )
            said = {}
    return Page(str(path.relative_to(REPO)), folder, tuple(blocks))


def smaller_study(text: str, board_lines: str) -> str:
    """A study file as a test runs it: few trials, on a server of this host in the place of a host that no test has."""
    for pattern, replacement in SMALLER.items():
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    text = re.sub(r'^python = "/[^"]*".*$', f'python = "{sys.executable}"', text, flags=re.MULTILINE)
    text = re.sub(r'^host = "[^"]*".*$', board_lines, text, flags=re.MULTILINE)
    text = re.sub(r'^user = "[^"]*".*$', "", text, flags=re.MULTILINE)
    lines = [
        line
        for line in text.splitlines()
        if not re.match(r"(queries|cold_starts|max_(drift|spread|background_cores))\b", line)
    ]
    measure = f"[measure]\nqueries = {QUERIES['p99' in text]}\ncold_starts = 0\n{TOLERANT}"
    if "[measure]" in lines:
        lines[lines.index("[measure]")] = measure
    else:
        lines.append(f"\n{measure}")
    return "\n".join(lines) + "\n"


def run_block(block: Block, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a block; what it printed. Fails with its output when it ends otherwise than the page says."""
    command = (
        ["bash", "-euo", "pipefail", "-c", block.text]
        if block.language == "sh"
        else [*warm_cli.interpreter(), block.text]
    )
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_LIMIT_S,
        check=False,
    )
    said = f"{run.stdout}\n{run.stderr}"
    assert run.returncode in block.exit_codes, (
        f"line {block.line} ended with {run.returncode}:\n{block.text}\n{said[-6000:]}"
    )
    return said


def edgedeploy_commands(text: str) -> Iterator[list[str]]:
    """The words of each command line of edgedeploy in a ``sh`` block, without pipes and what follows them."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "edgedeploy":
            ends = [words.index(mark) for mark in ("|", "&&", ";", ">", "&") if mark in words]
            yield words[1 : min(ends, default=len(words))]
