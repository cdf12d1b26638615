"""Whether what is shipped is built again by its recipe, on this host, with today's tools: the same bytes, or what differs.

A study's pick is built from the model that the study keeps, by the study's own workbench, in a folder of its own: nothing of
the study is changed. A bundle is built from its portable model by ``recipe.json``, where a target can do that without what
is not in a bundle. An artifact that differs is built once more: a toolchain that answers the same question differently is
found out before a tool's version is blamed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, EdgeDeployError, StorageError, TargetUnavailable
from edgedeploy.interfaces.target import BuildRequest, FitsBoard, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.nightly.bundles import recipe_of
from edgedeploy.nightly.subject import Entry, Subject, prepare
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.night import Rebuilt
from edgedeploy.records.precision import CALIBRATED
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import describe
from edgedeploy.reference.program import FromProgram
from edgedeploy.runtime.bundle.manifest import Manifest
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.account import Account
from edgedeploy.study.bundle.make import REFERENCE
from edgedeploy.study.bundle.material import Material, gather
from edgedeploy.study.bundle.refused import refusals_told
from edgedeploy.study.models import kept_reference
from edgedeploy.study.preflight import ready_targets
from edgedeploy.study.reading import FAULTS
from edgedeploy.study.store import Store
from edgedeploy.study.workbench import Workbench
from edgedeploy.targets.registry import find_targets

NO_RECIPE: Final = "the bundle has no recipe.json that this version reads"
NO_CASES: Final = "it was calibrated, and a bundle has no calibration cases: let the entry name its study"
NO_PROGRAM: Final = "its target builds from torch's own program, which is not in a bundle: let the entry name its study"
PROGRAM_TOOL: Final = "litert-torch"
ON_DEVICE: Final = "its engine is built on the device"
UNREPEATABLE: Final = "two builds of today differ from each other: the toolchain answers the same question differently"

Build = Callable[[Path], Artifact]
"""Builds into a new folder."""


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
        build = _of_study(entry, base_folder) if entry.study is not None else _of_bundle(entry, base_folder)
        found = _against(subject.candidate.artifact, build)
    except _NotHere as exc:
        return replace(subject, state=replace(subject.state, not_rebuilt=str(exc)))
    except StorageError:
        raise
    except EdgeDeployError as exc:
        return replace(subject, state=replace(subject.state, not_rebuilt=f"{type(exc).__name__}: {exc}"))
    return replace(subject, state=replace(subject.state, rebuilt=found))


class _NotHere(Exception):
    """Why this host cannot build it by its recipe."""


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


# -- studies


def _of_study(entry: Entry, base: Path) -> Build:
    assert entry.study is not None
    material = gather(base / entry.study, entry.pick)
    if kept_reference(material.reference.path.parent, (), _ignored) is None:
        found = "it is not what the study made"
        raise DataError(f"model of {material.measurement.variant.label}", found, "Put a copy of it back")
    target = _target(material.artifact.target)
    if isinstance(target, FitsBoard):
        target = target.for_board(material.measurement.board)
    return lambda folder: _by_workbench(material, target, folder)


def _by_workbench(material: Material, target: Target, folder: Path) -> Artifact:
    """In a store of its own, which holds the study's model and nothing else."""
    found, store = material.measurement, Store(folder)
    variant = found.variant
    shutil.copytree(material.reference.path.parent, store.model_folder(variant.model_digest))
    bench = Workbench(material.task, {target.name: target}, store, Account(store))
    bits = found.weight_bits.bits if found.weight_bits else variant.weight_bits or None
    return bench.artifact(variant, bits)[0]


def _ignored(text: str) -> None:
    pass


# -- bundles


def _of_bundle(entry: Entry, base: Path) -> Build:
    assert entry.bundle is not None
    place = base / entry.bundle
    with refusals_told(f"bundle {place}"):
        found = verify(place, None if entry.trust is None else base / entry.trust)
    manifest, tree = found.manifest, found.tree
    recipe = recipe_of(tree)
    variant = _variant(recipe)
    target = _target(manifest.target)
    _require_buildable(manifest, tree, recipe, variant, target)
    return lambda folder: _by_recipe(tree, recipe, variant, target, folder)


def _variant(recipe: Mapping[str, Any]) -> Variant:
    try:
        return Variant.from_json(recipe["variant"])
    except FAULTS:
        raise _NotHere(NO_RECIPE) from None


def _require_buildable(
    manifest: Manifest, tree: Tree, recipe: Mapping[str, Any], variant: Variant, target: Target
) -> None:
    if manifest.artifact.kind == "recipe":
        raise _NotHere(ON_DEVICE)
    if REFERENCE not in tree.files:
        raise _NotHere(f"the bundle has no {REFERENCE}")
    if any(name in CALIBRATED for name in variant.precisions) and not _told(recipe).get("quantized"):
        raise _NotHere(NO_CASES)
    if isinstance(target, FromProgram) and PROGRAM_TOOL in (recipe.get("built_with") or ()):
        raise _NotHere(NO_PROGRAM)


def _told(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    found = recipe.get("reference")
    return found if isinstance(found, Mapping) else {}


def _by_recipe(tree: Tree, recipe: Mapping[str, Any], variant: Variant, target: Target, folder: Path) -> Artifact:
    folder.mkdir()
    model = folder / "model" / Path(REFERENCE).name
    model.parent.mkdir()
    model.write_bytes(tree.read(REFERENCE))
    reference = describe(model)
    quantized = bool(_told(recipe).get("quantized"))
    request = BuildRequest(
        reference=model,
        inputs=reference.inputs,
        outputs=reference.outputs,
        precision=variant.precision,
        calibration=_no_cases,
        plan=BuildRequest.plan if quantized else variant.plan,
        calibrator=variant.calibration,
        quantizer=variant.quantizer,
        quantized=quantized,
        weight_bits=variant.weight_bits or BuildRequest.weight_bits,
    )
    return target.build(request, folder / "artifact")


def _no_cases() -> Iterator[dict[str, Array]]:
    yield from ()


def _target(name: str) -> Target:
    """Raises ``TargetUnavailable``."""
    plugins = [plugin for plugin in find_targets() if plugin.name == name]
    if not plugins:
        raise TargetUnavailable(f"target {name!r}", "no package here has it", "Install the one that has")
    return ready_targets(plugins)[name]
