"""``sbom.cdx.json``: a CycloneDX 1.6 bill of materials of a model, by hand: the Python library has no model cards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgedeploy._version import __version__
from edgedeploy.errors import BundleError
from edgedeploy.evidence.front import Row
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.runtime.sessions.sources import BUILTIN
from edgedeploy.study.bundle.material import Material
from edgedeploy.study.bundle.options import NOT_STATED, BundleOptions

SCHEMA: Final = "http://cyclonedx.org/schema/bom-1.6.schema.json"
NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/edgedeploy-bundle")
MODEL, REFERENCE, RUNTIME, NUMPY = "model", "reference-model", "runtime", "numpy"


def sbom(material: Material, options: BundleOptions, name: str, created: str) -> dict[str, Any]:
    """Equal bundles give equal serial numbers. Raises ``BundleError`` for a reference to a component that is not in it."""
    artifact, found = material.artifact, material.measurement
    package = BUILTIN[artifact.target].packages[0]
    seed = f"{name} {options.release} {artifact.digest} {found.digest} {found.created_utc}"
    tools = [
        _library(f"tool-{tool}", tool, version, "excluded")
        for tool, version in sorted(dict(artifact.built_with).items())
    ]
    bom: dict[str, Any] = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, seed)}",
        "version": 1,
        "metadata": {
            "timestamp": created,
            "tools": {"components": [{"type": "application", "name": "edgedeploy", "version": __version__}]},
            "component": {
                **_component("machine-learning-model", MODEL, name, str(options.release)),
                **({"supplier": {"name": options.supplier}} if options.supplier else {}),
                "description": f"{found.variant.label}, for {artifact.target}",
                "modelCard": _model_card(material),
                "properties": _support(options),
            },
            **({"supplier": {"name": options.supplier}} if options.supplier else {}),
        },
        "components": [
            *({**_file(f"artifact-{item.name}", f"artifact/{item.name}", item.sha256)} for item in artifact.files),
            {
                **_component("machine-learning-model", REFERENCE, "reference.onnx", material.reference.sha256[:16]),
                "hashes": [_sha256(material.reference.sha256)],
                "scope": "excluded",
                "description": "what the artifact was built from and is compared with; a product does not load it",
            },
            _library(
                RUNTIME,
                package,
                found.candidate.runtime_version or found.board.runtimes.get(artifact.target, ""),
                "required",
            ),
            _library(NUMPY, "numpy", str(material.study["versions"].get("numpy", "")), "required"),
            *tools,
        ],
        "dependencies": [
            {
                "ref": MODEL,
                "dependsOn": sorted([*(f"artifact-{item.name}" for item in artifact.files), RUNTIME, NUMPY]),
            },
            *(
                {"ref": f"artifact-{item.name}", "dependsOn": sorted([REFERENCE, *(tool["bom-ref"] for tool in tools)])}
                for item in artifact.files
            ),
        ],
    }
    require_whole(bom)
    return bom


def require_whole(bom: Mapping[str, Any]) -> None:
    """Every reference names one component of the bill: a validator of schemas does not look. Raises ``BundleError``."""
    known = [item["bom-ref"] for item in _components(bom)]
    double = sorted({ref for ref in known if known.count(ref) > 1})
    if double:
        raise BundleError("the bill of materials", f"two components are named {double[0]!r}", "Report it")
    for item in bom.get("dependencies", ()):
        dangling = sorted({item["ref"], *item.get("dependsOn", ())} - set(known))
        if dangling:
            raise BundleError("the bill of materials", f"it names {dangling[0]!r}, which it does not hold", "Report it")


def _components(bom: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield bom["metadata"]["component"]
    yield from bom["components"]


def _component(kind: str, ref: str, name: str, version: str) -> dict[str, Any]:
    return {"type": kind, "bom-ref": ref, "name": name, **({"version": version} if version else {})}


def _library(ref: str, name: str, version: str, scope: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}" + (f"@{version.replace('+', '%2B')}" if version else "")
    return {**_component("library", ref, name, version), "scope": scope, "purl": purl}


def _file(ref: str, name: str, sha256: str) -> dict[str, Any]:
    return {**_component("file", ref, name, ""), "scope": "required", "hashes": [_sha256(sha256)]}


def _sha256(value: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": value}


def _support(options: BundleOptions) -> list[dict[str, str]]:
    return [
        {"name": "edgedeploy:support-level", "value": options.support or NOT_STATED},
        {"name": "edgedeploy:end-of-support", "value": options.end_of_support or NOT_STATED},
        {
            "name": "edgedeploy:known-vulnerabilities",
            "value": "not looked up: hold this bill against a database of them",
        },
    ]


def _model_card(material: Material) -> dict[str, Any]:
    front = material.front
    rows = [(material.choice.row, "the variant")]
    reference = front.row(front.reference)
    if reference is not None and reference.digest != material.measurement.digest:
        rows.append((reference, "the float baseline"))
    return {
        "modelParameters": {
            "task": material.task.name,
            "modelArchitecture": material.measurement.variant.label,
            "inputs": [{"format": _form(spec)} for spec in material.artifact.inputs],
            "outputs": [{"format": _form(spec)} for spec in material.artifact.outputs],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [metric for row, of in rows for metric in _performance(row, of, material)]
        },
        "considerations": {"technicalLimitations": [material.choice.text]},
    }


def _form(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}[{', '.join(map(str, spec.shape))}]"


def _performance(row: Row, of: str, material: Material) -> Iterator[dict[str, Any]]:
    """Values and bounds are texts in CycloneDX."""
    where = f"{of}; {material.measurement.provenance} on {row.board}"
    for name, item in sorted(row.estimates.items()):
        unit = material.front.unit(name)
        found: dict[str, Any] = {"type": f"{name} [{unit}]", "value": repr(item.value), "slice": where}
        if item.low is not None and item.high is not None:
            found["confidenceInterval"] = {"lowerBound": repr(item.low), "upperBound": repr(item.high)}
        yield found
