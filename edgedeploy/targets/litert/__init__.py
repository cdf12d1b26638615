"""The LiteRT target."""

from edgedeploy.targets.litert.target import LiteRtTarget

__all__ = ["LiteRtTarget"]
