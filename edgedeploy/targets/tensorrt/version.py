"""TensorRT releases as ``trtexec`` names them, and the releases that JetPack brings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_BANNER = re.compile(r"TensorRT\.\w+ \[TensorRT v(\d{1,6})\](?: \[b(\d{1,9})\])?")


@dataclass(frozen=True, order=True)
class TrtVersion:
    """``build`` distinguishes builds of one release (trtexec prints it from TensorRT 10 on); ordering ignores it."""

    major: int
    minor: int
    patch: int = 0
    build: int | None = field(default=None, compare=False)

    @classmethod
    def from_code(cls, code: str, build: str | None = None) -> TrtVersion:
        """``8502`` is 8.5.2, ``101303`` is 10.13.3: from 10 on, minor and patch have two digits each."""
        number = int(code)
        split = (number // 1000, number // 100 % 10) if len(code) <= 4 else (number // 10000, number // 100 % 100)
        return cls(*split, number % 100, int(build) if build else None)

    @classmethod
    def from_text(cls, text: str) -> TrtVersion:
        """``10.3`` or ``8.5.2``. Raises ``ValueError`` for anything else."""
        parts = [int(part) for part in text.split(".")]
        if not 2 <= len(parts) <= 3:
            raise ValueError(f"a TensorRT release such as '10.3' or '8.5.2', but got {text!r}")
        return cls(*parts)

    @property
    def exact(self) -> str:
        """With the build where it is known: engines are bound to that."""
        return str(self) if self.build is None else f"{self}+b{self.build}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def version_in(text: str) -> TrtVersion | None:
    """The release in a trtexec banner; None where there is no code (TensorRT 7 and older printed none)."""
    match = _BANNER.search(text)
    return TrtVersion.from_code(match.group(1), match.group(2)) if match else None


OLDEST: Final = TrtVersion(8, 0, 1)
"""The first release whose parser takes per-channel QDQ, and the one of JetPack 4.6."""

JETPACK_RELEASES: Final[Mapping[str, TrtVersion]] = {
    "JetPack 4.6": TrtVersion(8, 0, 1),
    "JetPack 4.6.1": TrtVersion(8, 2, 1),
    "JetPack 5.1": TrtVersion(8, 5, 2),
    "JetPack 6.1": TrtVersion(10, 3, 0),
    "JetPack 7.1 (Thor)": TrtVersion(10, 13, 3),
}
"""The releases that an artifact is linted against when its board is unknown."""
