"""The ONNX Runtime target."""

from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

__all__ = ["OnnxRuntimeTarget"]
