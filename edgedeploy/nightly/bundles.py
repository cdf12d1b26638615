"""A bundle of a lab: its artifact, golden vectors and portable model, from the very bytes that were verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.errors import BundleError
from edgedeploy.interfaces.task import Array
from edgedeploy.nightly.shipped import Shipped, state_of
from edgedeploy.records.artifact import Artifact, ArtifactFile, TensorSpec
from edgedeploy.records.precision import AS_GIVEN
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.bundle.arrays import read_array
from edgedeploy.runtime.bundle.manifest import ARTIFACT_FOLDER, Manifest, Tensor
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.bundle.verify import Verified, verify
from edgedeploy.study.bundle.make import REFERENCE, REFERENCE_WEIGHTS
from edgedeploy.study.bundle.rebuild import recipe_of
from edgedeploy.study.bundle.refused import refusals_told
from edgedeploy.study.reading import FAULTS


def of_bundle(place: Path, trust: Path | None) -> Shipped:
    """A bundle's folder or archive, verified first. Raises ``BundleError``."""
    with refusals_told(f"bundle {place}"):
        found = verify(place, trust)
        return _of_verified(place, found)


def _of_verified(place: Path, found: Verified) -> Shipped:
    manifest, tree = found.manifest, found.tree
    recipe = recipe_of(tree)
    cases = [(_arrays(tree, case.inputs), _arrays(tree, case.outputs)) for case in manifest.golden.cases]
    states = manifest.artifact.session.states
    inputs = _stacked(place, [taken for taken, _ in cases], states)
    answers = _stacked(place, [given for _, given in cases], {}, clips=bool(states))
    variant = recipe.get("variant")
    precision = str(recipe.get("precision", AS_GIVEN))
    artifact = _artifact(place, manifest, tree, precision, recipe, inputs, answers)
    return Shipped(
        artifact=artifact,
        source={name: tree.read(f"{ARTIFACT_FOLDER}/{name}") for name in manifest.artifact.files},
        threads=manifest.artifact.session.threads,
        states=dict(states),
        state=state_of(artifact, manifest.release, manifest.artifact.session.threads),
        inputs=lambda: inputs,
        answers=answers,
        answers_of=f"{manifest.name}, release {manifest.release}: its golden vectors",
        tolerance={name: limit.relative_l2 for name, limit in manifest.golden.tolerance.items()},
        precisions=() if not variant else _precisions(variant),
        reference=lambda: _portable(place, manifest, tree, recipe, artifact, inputs),
    )


def _precisions(variant: Any) -> tuple[str, ...]:
    try:
        return Variant.from_json(variant).precisions
    except FAULTS:
        return ()


def _arrays(tree: Tree, names: Mapping[str, str]) -> dict[str, Array]:
    return {name: read_array(tree.read(file), file) for name, file in names.items()}


def _stacked(
    place: Path, rows: Sequence[Mapping[str, Array]], states: Mapping[str, str], *, clips: bool | None = None
) -> dict[str, Array]:
    """One row a case. Clips are cut to the shortest: what comes before a frame does not hang on what follows it."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if (bool(states) if clips is None else clips) and name not in states:
            frames = min(len(value) for value in values)
            values = [value[:frames] for value in values]
        try:
            found[name] = np.stack(values)
        except ValueError:
            text = f"its golden cases have different shapes of {name!r}"
            raise BundleError(f"bundle {place}", text, "Make it again: golden cases are of one shape") from None
    return found


def _artifact(
    place: Path,
    manifest: Manifest,
    tree: Tree,
    precision: str,
    recipe: Mapping[str, Any],
    inputs: Mapping[str, Array],
    answers: Mapping[str, Array],
) -> Artifact:
    names = manifest.artifact.files
    nested = [name for name in names if "/" in name]
    if nested:
        raise BundleError(f"bundle {place}", f"its artifact has the folder of {nested[0]!r}", "Boards take plain files")
    clips = bool(manifest.artifact.session.states)
    built = recipe.get("built_with")
    return Artifact(
        target=manifest.target,
        precision=precision,
        entry=manifest.artifact.session.entry,
        files=tuple(_file(name, tree, f"{ARTIFACT_FOLDER}/{name}") for name in sorted(names)),
        inputs=tuple(_spec(item, inputs.get(item.name), clips) for item in manifest.inputs),
        outputs=tuple(_spec(item, answers.get(item.name), clips) for item in manifest.outputs),
        settings=tuple(sorted(manifest.artifact.session.settings.items())),
        reference_sha256=tree.digests.get(REFERENCE, ""),
        built_with=tuple(sorted((str(k), str(v)) for k, v in built.items())) if isinstance(built, Mapping) else (),
    )


def _file(name: str, tree: Tree, path: str) -> ArtifactFile:
    return ArtifactFile(name, tree.digests[path], len(tree.read(path)))


def _spec(item: Tensor, rows: Array | None, clips: bool) -> TensorSpec:
    """A free dimension is what the golden vectors have there; one that they do not show is 1."""
    seen = () if rows is None else rows.shape[1:]
    if clips and len(seen) == len(item.shape) + 1:
        seen = seen[1:]
    sizes = (*seen, *(1 for _ in item.shape[len(seen) :]))
    return TensorSpec(item.name, item.dtype, tuple(sizes[at] if n is None else n for at, n in enumerate(item.shape)))


def _portable(
    place: Path,
    manifest: Manifest,
    tree: Tree,
    recipe: Mapping[str, Any],
    shipped: Artifact,
    inputs: Mapping[str, Array],
) -> Shipped:
    """The ONNX model that the artifact was built from, in ONNX Runtime."""
    if REFERENCE not in tree.files:
        remedy = "Name another baseline in the entry: baseline = BUNDLE"
        raise BundleError(f"bundle {place}", f"it has no {REFERENCE}, so that it is timed beside nothing", remedy)
    told = recipe.get("reference")
    own = isinstance(told, Mapping) and (told.get("quantized") or told.get("as_given"))
    parts = {Path(part).name: part for part in (REFERENCE, REFERENCE_WEIGHTS) if part in tree.files}
    name = Path(REFERENCE).name
    artifact = replace(
        shipped,
        target="onnxruntime",
        precision=AS_GIVEN if own else "float32",
        entry=name,
        files=tuple(_file(own_name, tree, part) for own_name, part in parts.items()),
        settings=(),
        built_with=(),
    )
    return Shipped(
        artifact=artifact,
        source={own_name: tree.read(part) for own_name, part in parts.items()},
        threads=manifest.artifact.session.threads,
        states=dict(manifest.artifact.session.states),
        state=state_of(artifact, manifest.release, manifest.artifact.session.threads),
        inputs=lambda: inputs,
        answers=None,
        answers_of="",
        tolerance={},
        precisions=(artifact.precision,),
        reference=lambda: _portable(place, manifest, tree, recipe, shipped, inputs),
    )
