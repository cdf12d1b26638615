"""Whether what is shipped is built again by its recipe: the same bytes, or what differs.

An artifact that differs is built once more: a toolchain that answers the same question differently is found out before the
version of a tool is blamed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.errors import EdgeDeployError, StorageError
from edgedeploy.nightly.subject import Entry, Subject, prepare
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.night import Rebuilt
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.material import gather
from edgedeploy.study.bundle.rebuild import Build, of_bundle, of_study
from edgedeploy.study.bundle.refused import refusals_told

UNREPEATABLE: Final = "two builds of today differ from each other: the toolchain answers the same question differently"


def prepared(entry: Entry, base_folder: Path, frozen_folder: Path) -> Subject:
    """As :func:`~edgedeploy.nightly.subject.prepare`, and built again where the entry asks for it."""
    subject = prepare(entry, base_folder, frozen_folder)
    return rebuilt(subject, entry, base_folder) if entry.rebuild else subject


def rebuilt(subject: Subject, entry: Entry, base_folder: Path) -> Subject:
    """The subject, whose state says what a build of today gives; or why there is none. ``base_folder`` is that of the lab
    file. Once a night and entry: a build may take minutes, and is no work beside a measurement on this host.

    Raises ``StorageError``; any other failure is a reason why there is none: what is shipped can be measured all the same.
    """
    try:
        found = _against(subject.candidate.artifact, _build(entry, base_folder))
    except StorageError:
        raise
    except EdgeDeployError as exc:
        return replace(subject, state=replace(subject.state, not_rebuilt=f"{type(exc).__name__}: {exc}"))
    return replace(subject, state=replace(subject.state, rebuilt=found))


def _build(entry: Entry, base: Path) -> Build:
    if entry.bundle is None:
        return of_study(gather(base / str(entry.study), entry.pick))
    place = base / entry.bundle
    with refusals_told(f"bundle {place}"):
        found = verify(place, None if entry.trust is None else base / entry.trust)
    return of_bundle(found.manifest, found.tree)


def _against(shipped: Artifact, build: Build) -> Rebuilt:
    with tempfile.TemporaryDirectory(prefix="edgedeploy-") as place:
        again = build(Path(place) / "first")
        if again.digest == shipped.digest:
            return Rebuilt(True, again.digest)
        differences = list(_differences(shipped, again))
        if build(Path(place) / "second").digest != again.digest:
            differences.append(UNREPEATABLE)
        return Rebuilt(False, again.digest, tuple(differences))


def _differences(shipped: Artifact, again: Artifact) -> Iterator[str]:
    """Files first, then what may explain them."""
    ours, theirs = ({item.name: item.sha256 for item in artifact.files} for artifact in (again, shipped))
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            yield f"{name} is {'new' if name in ours else 'missing'}"
        elif ours[name] != theirs[name]:
            yield f"{name} has other bytes"
    if again.settings != shipped.settings:
        yield "its settings differ"
    now, then = dict(again.built_with), dict(shipped.built_with)
    tools = [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
    for name in tools:
        yield f"{name} is {now.get(name, 'not used')} here, and was {then.get(name, 'not used')}"
    if not tools:
        yield "all tools that it names have the same versions"
