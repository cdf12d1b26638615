"""What the maker of a bundle may say beside the study."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.runtime.bundle.manifest import DATE, MOST_RELEASE, NAME
from edgedeploy.study.bundle.golden import SOURCES, Source

NOT_STATED: Final = "not stated"
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class BundleOptions:
    """- ``name``: what releases have in common; the study's name when left out.
    - ``release``: rises with each release of that name; a device refuses an older one.
    - ``not_after``: the day after whose end the maker does not stand for it any more, ``2027-12-31``; empty for none.
    - ``golden``: ``synthetic``, or ``cases`` of the calibration split, which may be patients' data.
    - ``supplier``, ``support``, ``end_of_support``: for the bill of materials; the last is a day.
    - ``sign``: a private key in PEM.

    Raises ``SpecError``.
    """

    name: str = ""
    release: int = 1
    not_after: str = ""
    golden: Source = "synthetic"
    supplier: str = ""
    support: str = ""
    end_of_support: str = ""
    sign: Path | None = None

    def __post_init__(self) -> None:
        if self.name and not NAME.fullmatch(self.name):
            raise SpecError(f"--name {self.name!r}", "it is no name", "1 to 100 letters, digits, '.', '_' and '-'")
        if not 1 <= self.release <= MOST_RELEASE:
            raise SpecError(f"--release {self.release}", "it is no number of a release", "1 or more")
        if self.golden not in SOURCES:
            raise SpecError(f"--golden {self.golden}", "there is no such source", f"Known: {', '.join(SOURCES)}")
        for key in ("not_after", "end_of_support"):
            _day(key, getattr(self, key))
        for key in ("supplier", "support"):
            if len(getattr(self, key)) > 200 or not getattr(self, key).isprintable():
                raise SpecError(f"--{key}", "it is no short text", "At most 200 characters on one line")

    @property
    def last_moment(self) -> str | None:
        return f"{self.not_after}T23:59:59Z" if self.not_after else None


def _day(key: str, text: str) -> None:
    try:
        sound = not text or (_DAY.fullmatch(text) is not None and bool(datetime.strptime(text, "%Y-%m-%d")))
    except ValueError:
        sound = False
    if not sound:
        raise SpecError(f"--{key.replace('_', '-')} {text}", "it is no day", "For example 2027-12-31")


def name_of(study: str) -> str:
    """A bundle's name from a study's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", study).strip("-._")[:100] or "model"


def moment_of(text: str) -> str:
    """An ISO time with its zone as the manifest writes it."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime(DATE)


def moment_at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(DATE)
