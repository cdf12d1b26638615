"""Forms that the files of a study's folder had in earlier versions, and the steps from each to the next.

Evidence cannot be made again, so its files carry the version of their form as ``schema``. A file of an older version is
read through the chain of :data:`STEPS`, which are pure functions of its data; it stays on disk as it is. One of a newer
version is refused (``study.json``) or set aside (evidence): this code does not know what it says.

A key that is added with a default needs no version: files are read with today's defaults for keys that they lack, and a
study file with a new key at its default asks what it asked before (``Study._check_folder``). A version goes up where a key
is renamed or means something else. Models, artifacts and inputs have none: what does not read is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

Kind = Literal["study", "measurement", "failure"]
Step = Callable[[Mapping[str, Any]], dict[str, Any]]

OLDEST: Final = 1

STEPS: Final[dict[Kind, tuple[Step, ...]]] = {"study": (), "measurement": (), "failure": ()}
"""By kind of file, the step from version 1 to 2, from 2 to 3, and so on. Versions that people have are never edited."""


class NewerFile(ValueError):
    """The file is of a version that this code does not know yet."""


def latest(kind: Kind) -> int:
    """The version that is written."""
    return OLDEST + len(STEPS[kind])


def upgraded(kind: Kind, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a file in its form of today. Raises :class:`NewerFile`, and ``ValueError`` for what is no version."""
    version = data.get("schema")
    if isinstance(version, bool) or not isinstance(version, int) or version < OLDEST:
        raise ValueError(f"its version (schema) is {str(version)[:40]!r}, not a whole number from {OLDEST} on")
    if version > latest(kind):
        found = (
            f"it is of version {str(version)[:40]}, and this edgedeploy reads up to {latest(kind)}: update edgedeploy"
        )
        raise NewerFile(found)
    found_data = dict(data)
    for number, step in enumerate(STEPS[kind][version - OLDEST :], start=version + 1):
        found_data = {**step(found_data), "schema": number}
    return found_data
