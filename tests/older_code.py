"""Code of an earlier commit, beside today's: what it writes is what today's has to read and to go on with.

A study goes on only on the machine that it was measured on, so a stored folder cannot show that: the earlier code is taken
out of git and makes the folder where the tests run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S

REPO: Final = Path(__file__).resolve().parent.parent

BEFORE_ROOMS: Final = "eef15fe485d8862342ca444e7f8106580125d835"
"""The last commit whose modules stood loose in the package's root: every one has another name since."""


@dataclass(frozen=True)
class OlderCode:
    """The package and the examples of ``commit``, unpacked in ``root``."""

    commit: str
    root: Path

    @property
    def examples(self) -> Path:
        return self.root / "tests" / "examples"

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "edgedeploy", *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        """Of a process that imports this code, whatever else is installed."""
        return {**os.environ, "PYTHONPATH": str(self.root)}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return finished(self.command(*arguments), self.environment(), cwd=self.root.parent)

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment(),
            cwd=self.root.parent,
        )


def older_code(folder: Path, commit: str = BEFORE_ROOMS) -> OlderCode:
    """The code of ``commit``, in ``folder``. Skips where git does not have it: a wheel, a shallow clone."""
    asked = [
        "git",
        "-C",
        str(REPO),
        "archive",
        "--format=tar",
        commit,
        "edgedeploy",
        "tests/examples",
        "pyproject.toml",
    ]
    try:
        packed = subprocess.run(asked, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"no git on this machine to take commit {commit[:7]} from")
    if packed.returncode != 0:
        said = packed.stderr.decode(errors="replace").strip().splitlines()
        pytest.skip(
            f"commit {commit[:7]} is not at hand ({said[-1] if said else 'git failed'}): fetch all of its history"
        )
    root = folder / f"code-{commit[:7]}"
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(root, filter="data")
    _describe(root)
    code = OlderCode(commit, root)
    place = [sys.executable, "-c", "import edgedeploy; print(edgedeploy.__file__)"]
    found = finished(place, code.environment(), cwd=folder).stdout.strip()
    assert Path(found).is_relative_to(root), f"the older code is not what runs: {found}"
    return code


def _describe(root: Path) -> None:
    """What an installed package says of itself. Its targets are entry points: those of today's installed package name
    modules that the older one has not, and the first description on the path of a package is the one that counts."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = root / f"{project['name']}-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
    groups = (
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())])
        for group, entries in project["entry-points"].items()
    )
    (folder / "entry_points.txt").write_text("\n\n".join(groups) + "\n")


def finished(
    argv: list[str], environment: dict[str, str] | None = None, *, cwd: Path | None = None, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """A process that has ended as it should."""
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=STUDY_LIMIT_S, env=environment, cwd=cwd
    )
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def today(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command of today's code."""
    return finished([*warm_cli.command(), *map(str, arguments)], status=status)


# -- what stays the same: the numbers; words may be said again

SAME_REL: Final = 1e-8
"""Numbers are printed with nine digits; another numpy may round the last one the other way."""
FIGURE: Final = re.compile(r"\d[\w.]*")


def figures(text: str) -> Counter[str]:
    """Every number of a text, with how often it stands there."""
    return Counter(figure.rstrip(".") for figure in FIGURE.findall(text))


def cells(text: str) -> str:
    """The short pieces of a page: headings and what stands in tables. Sentences may be said again and divided anew."""
    return "\n".join(line for line in text.splitlines() if len(line.split()) <= CELL_WORDS)


CELL_WORDS: Final = 6
HIDDEN: Final = ("script", "style", "svg", "title")


class _Visible(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.pictures = 0
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in HIDDEN
        self.pictures += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in HIDDEN

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.pieces.append(" ".join(data.split()))


def visible(page: str) -> tuple[str, int]:
    """What a reader of an HTML page sees, a piece per line, and how many pictures there are."""
    parser = _Visible()
    parser.feed(page)
    parser.close()
    return "\n".join(parser.pieces) + "\n", parser.pictures


def differences(before: Any, now: Any, place: str = "") -> list[str]:
    """Where ``now`` does not say what ``before`` said. It may say more, and a sentence may have other words."""
    if isinstance(before, dict) and isinstance(now, dict):
        lost = [f"{place}/{key} is gone" for key in before if key not in now]
        kept = [key for key in before if key in now]
        return lost + [line for key in kept for line in differences(before[key], now[key], f"{place}/{key}")]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for index, (old, new) in pairs for line in differences(old, new, f"{place}/{index}")]
    if isinstance(before, str) and isinstance(now, str) and " " in before:
        return [] if figures(before) == figures(now) else [f"{place}: {before!r}, now {now!r}"]
    number = isinstance(before, (int, float)) and isinstance(now, (int, float))
    same = before == pytest.approx(now, rel=SAME_REL, abs=0) if number else before == now
    return [] if same else [f"{place}: {before!r}, now {now!r}"]
