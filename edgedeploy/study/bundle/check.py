"""Verifies a bundle on this host, as a product does on its device."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import SpecError
from edgedeploy.runtime.bundle.verify import Verified, verify
from edgedeploy.study.bundle.refused import refusals_told

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Checked:
    """What was found of a bundle that is whole. ``signer`` is None where no signature was asked for."""

    name: str
    release: int
    target: str
    identity: str
    signer: str | None
    files: int
    size_bytes: int
    not_after: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check_bundle(bundle: Path, trust: Path | None, *, on: str = "", at_least: int = 0) -> Checked:
    """Verify a folder or an archive, see :func:`edgedeploy.runtime.bundle.verify.verify`. Its last day is held against the
    day ``on`` (2026-01-31), and against nothing without one. Raises ``SpecError``, and ``BundleError``, whose text begins
    with the reason."""
    now = end_of_day(on) if on else None
    with refusals_told(f"verify {bundle}"):
        return _checked(verify(bundle, trust, now=now, at_least=at_least))


def end_of_day(day: str) -> datetime:
    """The last second of a day, UTC. Raises ``SpecError``."""
    try:
        found = date.fromisoformat(day) if _DAY.fullmatch(day) else None
    except ValueError:
        found = None
    if found is None:
        raise SpecError("--on", f"{day!r} is no day", "Write it as 2026-01-31")
    return datetime(found.year, found.month, found.day, tzinfo=UTC) + timedelta(days=1, seconds=-1)


def _checked(found: Verified) -> Checked:
    manifest = found.manifest
    return Checked(
        name=manifest.name,
        release=manifest.release,
        target=manifest.target,
        identity=found.identity,
        signer=found.signer,
        files=len(found.tree.files),
        size_bytes=found.tree.size_bytes,
        not_after=manifest.not_after,
    )
