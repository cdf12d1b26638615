"""The target: an ONNX file that a Jetson builds its engine from, with what could be proved of it without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgedeploy.artifact import Artifact, sha256_file
from edgedeploy.errors import BuildError
from edgedeploy.files import write_json
from edgedeploy.protocols import BuildRequest, Readiness
from edgedeploy.targets.common import look_for, require, require_abilities, staged
from edgedeploy.targets.onnxquant import CALIBRATIONS
from edgedeploy.targets.tensorrt import rtx
from edgedeploy.targets.tensorrt.examination import examine
from edgedeploy.targets.tensorrt.recipes import PRECISIONS, write_model
from edgedeploy.targets.tensorrt.version import JETPACK_RELEASES, TrtVersion

ENTRY: Final = "model.onnx"
LINT: Final = "lint.json"
MEASURED: Final = "not measured: that needs the trtexec of an NVIDIA Jetson"
NEEDS_BOARD: Final = "To measure: edgedeploy.targets.tensorrt.measure_on_board with a Jetson"


class TensorRtTarget:
    """Engines are built on the board: the artifact is ONNX, never a plan. ``releases`` are what it is linted against."""

    name = "tensorrt"
    precisions: tuple[str, ...] = PRECISIONS
    layer_precisions: tuple[str, ...] = PRECISIONS
    calibrations: tuple[str, ...] = CALIBRATIONS
    extra = "study"
    board_remedy = (
        "TensorRT runs on an NVIDIA Jetson: its trtexec is asked for by edgedeploy.targets.tensorrt.measure_on_board, "
        "not by a search"
    )

    def __init__(self, releases: Sequence[TrtVersion] = tuple(JETPACK_RELEASES.values())) -> None:
        self._releases = tuple(releases)

    def probe(self) -> Readiness:
        """Ready means: files can be written and linted. ``tensorrt-rtx`` adds a parser and a builder.

        Measured here it never is: that needs the board. The remedy names the next step there is.
        """
        ready = look_for(("onnx", "onnxruntime"), self.extra)
        version = rtx.installed_version()
        if not ready.ready:
            return ready
        if version is not None:
            works = f"lint, parsed and built by {rtx.PACKAGE} {version} on the CPU (a proxy)"
            versions = {**ready.versions, rtx.PACKAGE: version}
            return Readiness(True, versions, f"{ready.found}; works here: {works}; {MEASURED}", NEEDS_BOARD)
        found = f"{ready.found}; works here: lint; not parsed, not built: {rtx.PACKAGE} is not installed; {MEASURED}"
        return Readiness(True, ready.versions, found, f"pip install 'edgedeploy[tensorrt]'. {NEEDS_BOARD}")

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`edgedeploy.protocols.Target`. ``model.onnx`` and ``lint.json``; ``settings`` hold the level of proof,
        the tool that gave it, and the releases whose rules the file keeps. Raises ``Unsupported`` when it keeps none's.
        """
        versions = require(self, request.precision)
        require_abilities(self, request)
        if request.reference.suffix in (".plan", ".engine", ".trt"):
            raise BuildError(
                request.reference.name, "a plan is native code for one GPU and TensorRT", "Give the ONNX file"
            )
        with staged(folder) as scratch:
            path = scratch / ENTRY
            write_model(request, path)
            found = examine(path, request.precision, self._releases)
            evidence = found.require()
            write_json(
                scratch / LINT,
                {"evidence": evidence.as_json(), "releases": [result.as_json() for result in found.lint]},
            )
        return Artifact.of_folder(
            folder,
            target=self.name,
            precision=request.precision,
            entry=ENTRY,
            inputs=request.inputs,
            outputs=request.outputs,
            settings={"level": evidence.level.value, "proved_by": evidence.by, "releases": " ".join(found.releases)},
            reference_sha256=sha256_file(request.reference),
            built_with=versions,
        )
