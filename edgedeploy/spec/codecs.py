"""The values of ``image_codec`` in a study's search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgedeploy.records.variant import NO_CODEC, Scalar
from edgedeploy.runtime.pipeline.codecs import codec_of
from edgedeploy.spec.source import SpecSource

IMAGE_STAGES: Final = ("decode", "resize")
"""Stages of a frame that a study with codecs times: the decoder is one of them."""


def codecs_of(space: Mapping[str, Sequence[Scalar]]) -> tuple[str, ...]:
    """The codecs that the space asks for, without ``none``."""
    return tuple(str(value) for value in space.get("image_codec", ()) if value != NO_CODEC)


def check_codecs(
    source: SpecSource, space: Mapping[str, Sequence[Scalar]], scenarios: Sequence[str], stages: Sequence[str]
) -> None:
    """Refuse codecs that are none, and a real-time scenario that would leave their decoders out of the deadline."""
    for value in space.get("image_codec", ()):
        if value == NO_CODEC:
            continue
        try:
            named = codec_of(value).name
        except ValueError as exc:
            raise source.error("space.image_codec", str(exc)) from None
        if named != value:
            raise source.error("space.image_codec", f"{value!r} is written {named!r}")
    if "image_codec" in space and "realtime" in scenarios and not {*IMAGE_STAGES} <= {*stages}:
        found = "images are decoded before each inference, and the deadline has no stage for it"
        raise source.error("measure.realtime.stages", found, 'Ask for stages = ["decode", "resize"]')
