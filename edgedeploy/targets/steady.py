"""Repeats a failed build before the variant is blamed: converters and quantizers can fail at random (use of freed
memory, races, crashes).

- Two equal failures in a row are the variant's fault.
- After two different failures, a third build decides. If it succeeds, its artifact is used. If it fails too, the
  toolchain is at fault, and nothing is said of the variant.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgedeploy.errors import BuildError, Unrepeatable
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.translate import lasting

BUILDS: Final = 3
"""At most this many builds of one artifact."""


def build_steadily(
    build: Callable[[Path], Artifact], folder: Path, repeating: Callable[[BuildError], None] = lambda failure: None
) -> tuple[Artifact, list[BuildError]]:
    """The artifact that ``build`` makes in ``folder``, and the failures before it (usually none). ``repeating`` is
    called with each failure before the next build.

    Raises the ``BuildError`` that came twice in a row, or ``Unrepeatable``.
    """
    failures: list[BuildError] = []
    while len(failures) < BUILDS:
        if failures:
            repeating(failures[-1])
        try:
            return build(folder), failures
        except Unrepeatable:
            raise
        except BuildError as exc:
            if len(failures) == 1 and alike(failures[0], exc):
                raise
            failures.append(exc)
            _empty(folder)
    told = "; ".join(f"{number}: {failure}" for number, failure in enumerate(failures, start=1))
    raise Unrepeatable(
        "the same answer from a toolchain to the same question",
        f"{BUILDS} builds failed in different ways ({told})",
        "Try it again (--resume); if it stays so, update the toolchain or choose another target",
    ) from failures[-1]


def alike(first: BuildError, second: BuildError) -> bool:
    """Whether two failures say the same, including the numbers of a comparison."""
    return type(first) is type(second) and _told(first) == _told(second)


def _told(failure: BuildError) -> tuple[str, str]:
    return lasting(failure.asked), lasting(failure.found)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
