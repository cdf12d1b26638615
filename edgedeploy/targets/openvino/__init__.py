"""The OpenVINO target."""

from edgedeploy.targets.openvino.target import OpenVinoTarget

__all__ = ["OpenVinoTarget"]
