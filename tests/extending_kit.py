"""A copy of the package that a test changes as CONTRIBUTING.md says, and how many files that page promises for it."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "edgedeploy"


def promised(what: str) -> int:
    """The number of files in the heading of its chapter: ``## A metric: 1 file``."""
    text = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(rf"^## An? {re.escape(what)}: (\d+) files?$", text, flags=re.MULTILINE)
    assert len(found) == 1, f"CONTRIBUTING.md has {len(found)} chapters about a {what}"
    return int(found[0])


_STEP: Final = re.compile(
    r"```python\n# (\S+), (a new file|at the end of|before|after the line)(?: ([^\n]+))?\n(.*?)```", re.DOTALL
)
_ENDS: Final = {"(": ")", "{": "}", "[": "]"}


class Tree:
    """A copy of the package below ``folder``, with the byte code of what is not changed: it names the source's time and
    size, which are copied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "edgedeploy"
        being_written = shutil.ignore_patterns("*.pyc.*")  # by who imports the package now: gone before it is copied
        shutil.copytree(PACKAGE, self.package, ignore=being_written)

    def add(self, name: str, text: str) -> None:
        """A new file of the package."""
        path = self.package / name
        assert not path.exists(), name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        """Put ``new`` in the place of ``old``, which stands there once."""
        path = self.package / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def follow(self, page: str) -> None:
        """Put each block of code where the page says: ``# PATH, at the end of NAME`` and its like are the first lines."""
        steps = _STEP.findall(page)
        assert steps, "the page has no step"
        for name, where, anchor, code in steps:
            path = self.folder / name
            if where == "a new file":
                self.add(str(path.relative_to(self.package)), code)
                continue
            text = path.read_text(encoding="utf-8")
            at = _place(text, where, anchor)
            path.write_text(text[:at] + (code + "\n\n" if where == "before" else code) + text[at:], encoding="utf-8")

    def changed(self) -> list[str]:
        """Files that are new or differ from the package's own."""
        names = [str(path.relative_to(self.package)) for path in self.package.rglob("*") if path.is_file()]
        return sorted(
            name
            for name in names
            if "__pycache__" not in name
            and not ((PACKAGE / name).is_file() and filecmp.cmp(self.package / name, PACKAGE / name, shallow=False))
        )

    def passes(self, *tests: str) -> None:
        """The tests at these places hold for this copy: what they ask of the package goes on when something is added."""
        argv = (
            "-P",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *tests,
        )  # -P: not the package in the folder at hand
        done = self.run(*argv, cwd=REPO)
        assert done.returncode == 0, done.stdout[-3000:]

    def run(self, *argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """``python ARGV...`` with this copy in front of the installed package."""
        env = {**os.environ, "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, *argv], capture_output=True, text=True, cwd=cwd or self.folder, env=env, check=False
        )


def _place(text: str, where: str, anchor: str) -> int:
    """The index at which a block goes into ``text``."""
    if where == "after the line":
        (at,) = (found.end() for found in re.finditer(rf"^ *{re.escape(anchor)}\n", text, re.MULTILINE))
        return int(at)
    (at,) = (
        found.start()
        for found in re.finditer(rf"^(?:class {anchor}\b|{anchor}(?:: Final[^=]*)? ?=)", text, re.MULTILINE)
    )
    if where == "before":
        return int(at)
    opened = re.compile(r"= (?:Literal)?([(\[{])\n").search(text, at)
    assert opened is not None, anchor
    return text.index(f"\n{_ENDS[opened[1]]}\n", at) + 1
