"""Runs capsules with ONNX Runtime. This file alone goes to boards: Python 3.8, nothing of this package beside it."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sessions import onnxruntime

MAGIC = b"CAPSULE1"


def open_model(path: Path, settings: Mapping[str, str], threads: int) -> CapsuleSession:
    return CapsuleSession(path, settings, threads)


class CapsuleSession:
    def __init__(self, path: Path, settings: Mapping[str, str], threads: int) -> None:
        data = path.read_bytes()
        if not data.startswith(MAGIC):
            raise RuntimeFault("open_failed", f"{path.name} is no capsule: it begins with {data[:8]!r}")
        self._folder = tempfile.TemporaryDirectory(prefix="capsule-")  # goes with the session
        model = Path(self._folder.name) / "model.onnx"
        model.write_bytes(zlib.decompress(data[len(MAGIC) :]))
        self._session = onnxruntime.open_model(model, settings, threads)
        self.inputs = self._session.inputs
        self.outputs = self._session.outputs
        self.device = f"capsule on {self._session.device}"
        self.version = self._session.version

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return self._session.run(feeds)

    def executed(self) -> dict[str, int]:
        return self._session.executed()

    def profile(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return self._session.profile(feeds)
