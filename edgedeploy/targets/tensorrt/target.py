"""The target: an ONNX file that a Jetson builds its engine from, with what could be proved of it without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.errors import BuildError, TargetUnavailable, Unsupported
from edgedeploy.files import write_json
from edgedeploy.interfaces.target import BuildRequest, Readiness
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.board import BoardInfo
from edgedeploy.runtime.sessions.sources import BUILTIN
from edgedeploy.runtime.sessions.tensorrt.engine import NAMED_TENSORS
from edgedeploy.runtime.sessions.tensorrt.session import PRECISIONS
from edgedeploy.targets.common import look_for, staged_artifact
from edgedeploy.targets.onnxruntime.quantize import CALIBRATIONS
from edgedeploy.targets.tensorrt import rtx
from edgedeploy.targets.tensorrt.graphview import GraphView
from edgedeploy.targets.tensorrt.lint import LintResult, Platform, lint
from edgedeploy.targets.tensorrt.proof import Evidence, Level
from edgedeploy.targets.tensorrt.recipes import write_model
from edgedeploy.targets.tensorrt.version import JETPACK_RELEASES, TrtVersion

ENTRY: Final = "model.onnx"
LINT: Final = "lint.json"
LAYER_PRECISIONS: Final = "layer_precisions"
TO_MEASURE: Final = "To measure: a Jetson whose Python has tensorrt 8.5 or newer (JetPack 5.1 and 6) and numpy"
SESSION_OLDEST: Final = TrtVersion(*NAMED_TENSORS)


@dataclass(frozen=True)
class Made:
    """An artifact, how far it was proved, and what each release's rules said."""

    artifact: Artifact
    evidence: Evidence
    results: tuple[LintResult, ...]


class TensorRtTarget:
    """Engines are built on the board: the artifact is ONNX, never a plan. ``releases`` are what it is linted against."""

    name = "tensorrt"
    session = BUILTIN["tensorrt"]
    precisions: tuple[str, ...] = ("float32", "float16", "bfloat16", "int8")
    layer_precisions: tuple[str, ...] = ("float32", "float16", "bfloat16", "int8")
    calibrations: tuple[str, ...] = CALIBRATIONS
    quantizers: Mapping[str, tuple[str, ...]] = {"onnxruntime": CALIBRATIONS}
    takes_quantized = True
    extra = "study"
    board_remedy = (
        "It runs on an NVIDIA Jetson, whose system Python has the package tensorrt by JetPack, not by pip: name that Python "
        f"in the board's table. To check models without a Jetson: edgedeploy.targets.tensorrt.prove. {TO_MEASURE}"
    )

    def __init__(self, releases: Sequence[TrtVersion] = tuple(JETPACK_RELEASES.values())) -> None:
        self._releases = tuple(releases)

    def probe(self) -> Readiness:
        """Ready means: files can be written and linted. ``tensorrt-rtx`` adds a parser and a builder."""
        ready = look_for(("onnx", "onnxruntime"), self.extra)
        version = rtx.installed_version()
        if version is not None:
            found = f"{ready.found}; {rtx.PACKAGE} {version}: files are linted, parsed and built, on the CPU"
            return Readiness(ready.ready, {**ready.versions, rtx.PACKAGE: version}, found, ready.remedy or TO_MEASURE)
        found = f"{ready.found}; {rtx.PACKAGE} is not installed: files are linted only"
        remedy = f"To parse and build: pip install 'edgedeploy[tensorrt]'. {TO_MEASURE}"
        return Readiness(ready.ready, ready.versions, found, ready.remedy or remedy)

    def for_board(self, info: BoardInfo) -> TensorRtTarget:
        """See ``FitsBoard``: what the board's release refuses is refused before building."""
        found = info.runtimes[self.name]
        version = TrtVersion.from_text(".".join(found.split(".")[:3]))
        if version < SESSION_OLDEST:
            raise TargetUnavailable(
                f"target {self.name!r} on board {info.name!r}",
                f"TensorRT {found} names no tensors in its Python API",
                f"Use {SESSION_OLDEST} or newer, or edgedeploy.targets.tensorrt.measure_on_board, which needs trtexec alone",
            )
        return TensorRtTarget((version,))

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`~edgedeploy.interfaces.target.Target`. ``model.onnx`` and ``lint.json``; ``settings`` hold the level
        of proof, the tool that gave it, and the releases whose rules the file keeps. Raises ``Unsupported`` when it keeps
        none's.
        """
        return self.make(request, folder).artifact

    def make(self, request: BuildRequest, folder: Path) -> Made:
        """As :meth:`build`, with what the rules and the proxy said."""
        proofs: list[tuple[Evidence, tuple[LintResult, ...]]] = []

        def write(scratch: Path, versions: dict[str, str]) -> Mapping[str, str]:
            if request.reference.suffix in (".plan", ".engine", ".trt"):
                raise BuildError(
                    request.reference.name, "a plan is native code for one GPU and TensorRT", "Give the ONNX file"
                )
            path = scratch / ENTRY
            write_model(request, path)
            results = self._lint(path, request.precision)
            evidence = _evidence(path)
            write_json(
                scratch / LINT,
                {"evidence": evidence.as_json(), "releases": [result.as_json() for result in results]},
            )
            proofs.append((evidence, results))
            accepted = [str(result.platform.version) for result in results if not result.errors]
            return {
                "level": evidence.level.value,
                "proved_by": evidence.by,
                "releases": " ".join(accepted),
                LAYER_PRECISIONS: " ".join(request.plan.precisions),
                PRECISIONS: " ".join(sorted({request.precision, *request.plan.precisions})),
            }

        artifact = staged_artifact(self, request, folder, ENTRY, write)
        return Made(artifact, *proofs[0])

    def _lint(self, path: Path, precision: str) -> tuple[LintResult, ...]:
        view = GraphView.open(path)
        results = tuple(lint(view, Platform(version, precision)) for version in self._releases)
        if all(result.errors for result in results):
            newest = results[-1]
            found = "; ".join(str(finding) for finding in newest.errors)
            raise Unsupported(f"{precision} for TensorRT {newest.platform.version}", found, newest.errors[0].remedy)
        return results


def planned(artifact: Artifact) -> tuple[str, ...]:
    """The precisions that a plan gave to single layers of an artifact."""
    return tuple(str(dict(artifact.settings).get(LAYER_PRECISIONS, "")).split())


def _evidence(path: Path) -> Evidence:
    """How far this host can prove the file. Raises ``Unsupported`` when a proxy refuses it."""
    if rtx.installed_version() is None:
        return Evidence(Level.LINT, "edgedeploy's rules", f"no parser saw it: {rtx.PACKAGE} is not installed")
    return rtx.check(path).evidence
