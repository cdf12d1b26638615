"""Model in, artifact out: the ONNX reference, and one file per target."""

from collections.abc import Mapping
from typing import Final

BUILTIN_TARGETS: Final[Mapping[str, str]] = {
    "litert": "edgedeploy.targets.litert:LiteRtTarget",
    "onnxruntime": "edgedeploy.targets.onnxruntime:OnnxRuntimeTarget",
    "openvino": "edgedeploy.targets.openvino:OpenVinoTarget",
    "tensorrt": "edgedeploy.targets.tensorrt:TensorRtTarget",
}
"""Targets that come with the package, as entry points: so that a source checkout that is not installed has them too."""
