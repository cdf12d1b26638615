"""One module per benchmark; `scripts/bench` is the door, and `shared` holds what several need.

A benchmark is a module of this folder. Its docstring is its help, and the docstring's first line stands in the list that
`scripts/bench` prints. ``EXTRAS`` names the extras of pyproject.toml that it needs; none means that any Python runs it.
``main(argv)`` returns the exit code. Listing reads the source and imports nothing, so it works before anything is installed.
"""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
ROOT: Final = FOLDER.parents[1]

DOOR: Final = ROOT / "scripts" / "bench.py"
"""How a benchmark starts itself as another process: ``python DOOR NAME ...``. It is a file and no folder that can be run:
the measuring agent starts its workers by the program that is running where that is a folder or a zip file."""

PAGES: Final = ROOT / "docs" / "reference"
"""Where benchmarks write the pages that they generate."""


@dataclass(frozen=True)
class Benchmark:
    """``name`` is what `scripts/bench` is given, ``module`` the file's stem, ``line`` what it measures."""

    name: str
    module: str
    line: str
    extras: tuple[str, ...]


def catalogue() -> dict[str, Benchmark]:
    """Every benchmark of the folder by its name, in alphabetical order."""
    paths = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
    found = [_read(path) for path in paths]
    return {benchmark.name: benchmark for benchmark in found}


def _read(path: Path) -> Benchmark:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    declared = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "EXTRAS" and node.value is not None
    ]
    if len(declared) != 1:
        raise SyntaxError(f"{path.name} must declare EXTRAS once, as in `EXTRAS: Final = ('study',)`")
    line, *_ = (ast.get_docstring(tree) or "").splitlines() or [""]
    return Benchmark(path.stem.replace("_", "-"), path.stem, line, tuple(ast.literal_eval(declared[0])))


def listing() -> str:
    """What `scripts/bench` prints without a name."""
    found = catalogue().values()
    width = max(len(benchmark.name) for benchmark in found)
    lines = [f"  {benchmark.name:{width}}  {benchmark.line}" for benchmark in found]
    return "\n".join(
        ("usage: scripts/bench NAME [ARGUMENTS]", "", *lines, "", "scripts/bench NAME --help says what one takes.", "")
    )


def parser_of(name: str, text: str | None) -> argparse.ArgumentParser:
    """A parser for the benchmark ``name`` whose help begins with ``text``, the module's docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"scripts/bench {name}", description=text, formatter_class=formatter)
