"""Compressed ONNX: what ONNX Runtime's target builds, in one file of an own format."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from edgedeploy import Artifact, BuildRequest, Demand, Readiness, SessionSource
from edgedeploy.interfaces.ability import INT8_DOT_PRODUCTS
from edgedeploy.targets.common import build_artifact, look_for
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy_capsule.session import MAGIC

ENTRY = "model.capsule"


class CapsuleTarget:
    name = "capsule"
    session = SessionSource("edgedeploy_capsule.session", packages=("onnxruntime", "onnxruntime-gpu"))
    precisions: tuple[str, ...] = ("float32", "int8")
    demands: Mapping[str, Demand] = {"int8": Demand(fast_with=INT8_DOT_PRODUCTS)}
    extra = ""

    def probe(self) -> Readiness:
        found = look_for(("edgedeploy-capsule", "onnxruntime", "onnx"), self.extra)
        remedy = "" if found.ready else "pip install edgedeploy-capsule"
        return Readiness(found.ready, found.versions, found.found, remedy)

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        def write(scratch: Path, versions: dict[str, str]) -> dict[str, str]:
            with TemporaryDirectory() as desk:
                made = OnnxRuntimeTarget().build(request, Path(desk, "onnx"))
                data = Path(desk, "onnx", made.entry).read_bytes()
            (scratch / ENTRY).write_bytes(MAGIC + zlib.compress(data, 9))
            return {}

        return build_artifact(self, request, folder, ENTRY, write)
