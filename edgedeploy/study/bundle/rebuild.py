"""Builds what is shipped again by its recipe, on this host with today's tools.

A study's pick is built from the model that the study keeps, by the study's own workbench, in a folder of its own: nothing of
the study is changed. A bundle is built from its portable model by ``recipe.json``, where a target can do that without what
is not in a bundle.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BuildError, DataError, TargetUnavailable
from edgedeploy.files import parsed
from edgedeploy.interfaces.target import BuildRequest, FitsBoard, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.precision import CALIBRATED
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import describe
from edgedeploy.reference.external import check_weights, weights_file
from edgedeploy.reference.program import FromProgram
from edgedeploy.runtime.bundle.manifest import Manifest
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.study.account import Account
from edgedeploy.study.bundle.make import REFERENCE
from edgedeploy.study.bundle.material import Material
from edgedeploy.study.models import kept_reference
from edgedeploy.study.preflight import ready_targets
from edgedeploy.study.ranges import RANGES_SHA256
from edgedeploy.study.reading import FAULTS
from edgedeploy.study.store import Store
from edgedeploy.study.tiled import cut_request, of_volumes
from edgedeploy.study.workbench import Workbench
from edgedeploy.targets.registry import find_targets

RECIPE: Final = "recipe.json"
PROGRAM_TOOL: Final = "litert-torch"
NO_RECIPE: Final = "it has no recipe.json that this version reads"
NO_CASES: Final = "it was calibrated, and a bundle has no calibration cases"
NO_PROGRAM: Final = "it was built from torch's own program, which is not in a bundle"
ON_DEVICE: Final = "its engine is built on the device"

Build = Callable[[Path], Artifact]
"""Builds into a new folder. Raises ``BuildError``."""


def recipe_of(tree: Tree) -> dict[str, Any]:
    """``recipe.json``; empty where a bundle has none, or one of another form: it is for people and tools."""
    try:
        return parsed(tree.files[RECIPE]) if RECIPE in tree.files else {}
    except FAULTS:
        return {}


# -- studies


def of_study(material: Material) -> Build:
    """Raises ``DataError`` when the study's model is not whole, ``TargetUnavailable``."""
    if kept_reference(material.reference.path.parent, (), _ignored) is None:
        found = "it is not what the study made"
        raise DataError(f"model of {material.measurement.variant.label}", found, "Put a copy of it back")
    if material.study.get(RANGES_SHA256):
        found = "its int8 has ranges from a file, which is not read here"
        raise BuildError(f"build {material.measurement.variant.label} again", found, "Run its study in another --out")
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


def of_bundle(manifest: Manifest, tree: Tree) -> Build:
    """Raises ``BuildError`` where this bundle cannot be built again, with the reason; ``TargetUnavailable``."""
    recipe = recipe_of(tree)
    try:
        variant = Variant.from_json(recipe["variant"])
    except FAULTS:
        raise _cannot(manifest, NO_RECIPE) from None
    quantized = bool(_table(recipe, "reference").get("quantized"))
    if manifest.artifact.kind == "recipe":
        raise _cannot(manifest, ON_DEVICE)
    if REFERENCE not in tree.files:
        raise _cannot(manifest, f"it has no {REFERENCE}")
    if any(name in CALIBRATED for name in variant.precisions) and not quantized:
        raise _cannot(manifest, NO_CASES)
    target = _target(manifest.target)
    if isinstance(target, FromProgram) and PROGRAM_TOOL in _table(recipe, "built_with"):
        raise _cannot(manifest, NO_PROGRAM)
    return lambda folder: _by_recipe(tree, variant, target, folder, quantized=quantized)


def _cannot(manifest: Manifest, why: str) -> BuildError:
    return BuildError(f"build {manifest.name} again from its bundle", why, "Its study can build it")


def _table(recipe: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = recipe.get(key)
    return found if isinstance(found, Mapping) else {}


def _by_recipe(tree: Tree, variant: Variant, target: Target, folder: Path, *, quantized: bool) -> Artifact:
    model = folder / REFERENCE
    model.parent.mkdir(parents=True)
    for path in (model, weights_file(model)):
        name = f"{REFERENCE}{path.name.removeprefix(model.name)}"
        if name in tree.files:
            path.write_bytes(tree.read(name))
    check_weights(model)
    reference = describe(model)
    request = BuildRequest(
        reference=model,
        inputs=reference.inputs,
        outputs=reference.outputs,
        precision=variant.precision,
        calibration=_no_cases,
        plan=BuildRequest.plan if quantized else variant.plan,
        calibrator=variant.calibration,
        quantizer=variant.quantizer,
        max_batch=variant.max_batch,
        quantized=quantized,
        weight_bits=variant.weight_bits or BuildRequest.weight_bits,
    )
    cut, plan = cut_request(request, variant)
    return of_volumes(target.build(cut, folder / "artifact"), plan, request, folder / "artifact")


def _no_cases() -> Iterator[dict[str, Array]]:
    yield from ()


def _target(name: str) -> Target:
    """Raises ``TargetUnavailable``."""
    plugins = [plugin for plugin in find_targets() if plugin.name == name]
    if not plugins:
        raise TargetUnavailable(f"target {name!r}", "no package here has it", "Install the one that has")
    return ready_targets(plugins)[name]
