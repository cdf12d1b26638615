"""What a bundle says for machines: measured claims, the recipe of the build, the chain of hashes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from edgedeploy.evidence.bootstrap import LEVEL
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.measurement import Measurement
from edgedeploy.spec.public import without
from edgedeploy.study.bundle.material import Material

_CONDITIONS: Final = ("governor", "power_mode", "temperatures_c", "throttle_events", "cpu_mhz", "gpu_mhz", "load_1m")
_VERSIONS_LEFT_OUT: Final = ("system",)  # the name of the host's kernel is the host's


def claims(material: Material, golden_told: str) -> dict[str, Any]:
    """``claims.json``: what was measured, with intervals, where, and what is not known."""
    found, front = material.measurement, material.front
    row, reference = material.choice.row, front.row(front.reference)
    confirmed = next(
        (item for item in material.store.confirmations() if item.digest == found.digest and item.valid), None
    )
    return {
        "format": "edgedeploy-claims",
        "version": 1,
        "variant": {"digest": found.digest, "label": found.variant.label},
        "study": {"name": material.spec.study.name, "id": material.study.get("id", "")},
        "provenance": found.provenance,
        "measured_utc": found.created_utc,
        "board": board_json(found.board),
        "conditions": _conditions(found.environment),
        "interval_level": LEVEL,
        "metrics": _metrics(material, row.estimates),
        "missing": dict(sorted(row.missing.items())),
        "executed_layers": dict(sorted(row.executed.items())),
        "baseline": {"digest": reference.digest, "metrics": _metrics(material, reference.estimates)}
        if reference
        else None,
        "baseline_beside": dict(sorted(row.beside.items())),
        "against_baseline": material.choice.as_json(),
        "parity": dict(sorted(found.parity.items())),
        "cases": {"split": found.split, "count": len(found.cases), "groups": len(set(found.groups.values())) or None},
        "confirmation": _confirmation(confirmed, len(material.store.openings())),
        "golden": golden_told,
        "notes": [without(note, (*material.private, *material.cases)) for note in found.notes],
    }


def board_json(board: BoardInfo) -> dict[str, Any]:
    """What identifies the board's kind, and the digest that names this one; nothing by which it is reached."""
    kept = ("name", "identity", "provenance", "cpu", "arch", "isa", "cores", "memory_bytes", "os", "image", "python")
    data = board.as_json()
    return {**{key: data[key] for key in kept}, "runtimes": data["runtimes"], "accelerators": data["accelerators"]}


def _conditions(environment: Mapping[str, Any]) -> dict[str, Any]:
    def of(snapshot: Any) -> dict[str, Any]:
        data = snapshot if isinstance(snapshot, Mapping) else {}
        return {key: data[key] for key in _CONDITIONS if data.get(key) is not None}

    found = {when: of(environment.get(when)) for when in ("before", "after")}
    return {**found, "background_cpu_share": environment.get("background_cpu_share")}


def _metrics(material: Material, estimates: Mapping[str, Any]) -> dict[str, Any]:
    infos = material.front.metrics
    return {
        name: {
            **item.as_json(),
            "unit": infos[name].unit if name in infos else "1",
            "direction": infos[name].direction if name in infos else None,
            "text": infos[name].text if name in infos else "",
        }
        for name, item in sorted(estimates.items())
    }


def _confirmation(confirmed: Measurement | None, openings: int) -> dict[str, Any] | None:
    if confirmed is None:
        return None
    metrics = {name: value for name, value in sorted(confirmed.metrics.items()) if name not in confirmed.missing}
    return {
        "count": len(confirmed.cases),
        "metrics": metrics,
        "openings": openings,
        "measured_utc": confirmed.created_utc,
    }


def recipe(material: Material) -> dict[str, Any]:
    """``recipe.json``: how the artifact was built, with versions."""
    found, artifact = material.measurement, material.artifact
    versions = {name: text for name, text in material.study["versions"].items() if name not in _VERSIONS_LEFT_OUT}
    return {
        "format": "edgedeploy-recipe",
        "version": 1,
        "variant": found.variant.as_json(),
        "weight_bits": found.weight_bits.as_json() if found.weight_bits else None,
        "target": artifact.target,
        "precision": artifact.precision,
        "settings": dict(artifact.settings),
        "threads": found.variant.threads,
        "built_with": dict(artifact.built_with),
        "study_versions": versions,
        "reference": {key: value for key, value in material.reference.as_json().items() if key != "file"},
        "classes": list(classes_of(material)) or None,
    }


def classes_of(material: Material) -> tuple[str, ...]:
    """What the numbers of a result stand for, from 0 on; empty where the task does not say. Of a label map 0 is the
    background, and the task names what comes after it."""
    classes = getattr(material.task, "classes", ())
    named = tuple(map(str, classes)) if isinstance(classes, (Mapping, tuple, list)) else ()
    return ("background", *named) if named and isinstance(classes, Mapping) else named


def provenance(material: Material) -> dict[str, Any]:
    """``provenance.json``: hashes from the checkpoint to the artifact. A link without a hash says why."""
    study = material.study
    weights = material.front.weights
    sources = study.get("task_sources") or {}
    return {
        "format": "edgedeploy-provenance",
        "version": 1,
        "study": {"id": study.get("id", ""), "spec_digest": study["spec_digest"], "created_utc": study["created_utc"]},
        "task": {
            "kind": material.spec.task.kind,
            "code": {PurePath(name).name: sha256 for name, sha256 in sorted(sources.items())},
        },
        "cases": {
            split: {key: kept[key] for key in ("count", "ids")} for split, kept in (study.get("cases") or {}).items()
        },
        "chain": [
            _checkpoint(material) if weights is None else {"what": "checkpoint", **_named(weights.as_json())},
            {
                "what": "model",
                "digest": material.measurement.variant.model_digest,
                "files": dict(sorted(material.sums.items())),
            },
            {"what": "reference", "file": "model/reference.onnx", "sha256": material.reference.sha256},
            {
                "what": "artifact",
                "digest": material.artifact.digest,
                "files": {item.name: item.sha256 for item in material.artifact.files},
            },
        ],
    }


def _checkpoint(material: Material) -> dict[str, Any]:
    own = getattr(material.task, "source_sha256", "")
    if own:
        return {"what": "checkpoint", "origin": "an ONNX file of the user", "sha256": own}
    return {"what": "checkpoint", "origin": "unknown: the study's folder does not say"}


def _named(weights: Mapping[str, str]) -> dict[str, str]:
    """Of a checkpoint the file's name without its folders."""
    return {**weights, **({"file": PurePath(weights["file"]).name} if "file" in weights else {})}
