"""When the frames of a recording were taken, or requests of users came: time stamps of MetaImage sequences and of DICOM
clips, lists of times.

A recording is not trusted: its header is read line by line within limits, and its pixels are not read.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError

MAX_FRAMES: Final = 20_000
MAX_HEADER_BYTES: Final = 32 << 20
MAX_LINE_BYTES: Final = 64 << 10
MAX_LIST_BYTES: Final = 1 << 20
MAX_SPAN_S: Final = 24 * 3600.0

_TIMESTAMP: Final = re.compile(rb"Seq_Frame(\d{1,6})_Timestamp")
_DICOM_TAGS: Final = ("NumberOfFrames", "FrameTime", "FrameTimeVector")
_S_NS: Final = 1_000_000_000


def metaimage_arrivals_ns(path: Path) -> list[int]:
    """Arrival of each frame in nanoseconds after the first. Raises ``DataError``."""
    return arrivals_ns(metaimage_timestamps_s(path), path)


def dicom_arrivals_ns(path: Path) -> list[int]:
    """Arrival of each frame in nanoseconds after the first. Raises ``DataError``."""
    return arrivals_ns(dicom_timestamps_s(path), path)


def arrivals_ns(
    timestamps_s: Sequence[float],
    path: Path,
    what: str = "frame",
    remedy: str = "Sort its frames, or give rate_hz instead",
) -> list[int]:
    """Time stamps in seconds as nanoseconds after the first; ``path`` and ``what`` name them in errors."""
    asked = f"time stamps of {path}"
    if not 2 <= len(timestamps_s) <= MAX_FRAMES:
        raise DataError(asked, f"it has {len(timestamps_s)} {what}s with a time", f"2 to {MAX_FRAMES} are needed")
    for place, stamp in enumerate(timestamps_s):
        if not math.isfinite(stamp):
            raise DataError(asked, f"{what} {place} is at {stamp} s, which is no time", remedy)
        if place and stamp < timestamps_s[place - 1]:
            raise DataError(asked, f"{what} {place} is at {stamp} s, before the one before it", remedy)
    if timestamps_s[-1] - timestamps_s[0] > MAX_SPAN_S:
        raise DataError(asked, f"it spans {timestamps_s[-1] - timestamps_s[0]:g} s", f"At most {MAX_SPAN_S:g} s")
    return [round((stamp - timestamps_s[0]) * _S_NS) for stamp in timestamps_s]


def metaimage_timestamps_s(path: Path) -> list[float]:
    """``Seq_FrameNNNN_Timestamp`` of a MetaImage sequence's header (PLUS toolkit), in seconds, by frame number."""
    asked = f"time stamps of {path}"
    found: dict[int, float] = {}
    read_bytes = 0
    try:
        with path.open("rb") as stream:
            while True:
                line = stream.readline(MAX_LINE_BYTES + 1)
                read_bytes += len(line)
                if len(line) > MAX_LINE_BYTES or read_bytes > MAX_HEADER_BYTES:
                    raise DataError(asked, "its header does not end", f"At most {MAX_HEADER_BYTES} bytes are read")
                key, equals, value = (part.strip() for part in line.partition(b"="))
                if not equals:
                    raise DataError(asked, f"header line {line[:40]!r} is no `key = value`", "Is it a MetaImage file?")
                if key == b"ElementDataFile":
                    break
                if match := _TIMESTAMP.fullmatch(key):
                    found[int(match.group(1))] = _number(asked, value)
                    if len(found) > MAX_FRAMES:
                        raise DataError(asked, f"it has more than {MAX_FRAMES} frames", "Cut the recording")
    except OSError as exc:
        raise DataError(asked, f"it cannot be read ({exc})") from None
    missing = next((frame for frame in range(len(found)) if frame not in found), None)
    if missing is not None:
        raise DataError(asked, f"frame {missing} has no time stamp", "Every frame needs one")
    return [found[frame] for frame in range(len(found))]


def listed_arrivals_ns(path: Path) -> list[int]:
    """Arrival of each request in nanoseconds after the first, from a text file with one time in seconds a line; empty lines
    and what stands behind ``#`` count for nothing. Raises ``DataError``."""
    asked = f"arrival times of {path}"
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_LIST_BYTES + 1)
    except OSError as exc:
        raise DataError(asked, f"it cannot be read ({exc})") from None
    if len(text) > MAX_LIST_BYTES:
        raise DataError(asked, f"it has more than {MAX_LIST_BYTES} bytes", "Cut the recording")
    words = [line.partition(b"#")[0].strip() for line in text.splitlines()]
    times_s = [_number(asked, word, "One time in seconds a line") for word in words if word]
    return arrivals_ns(times_s, path, "request", "Sort the times")


def _number(asked: str, value: bytes, remedy: str = "Give rate_hz instead") -> float:
    try:
        return float(value)
    except ValueError:
        raise DataError(asked, f"{value[:40]!r} is no number of seconds", remedy) from None


def dicom_timestamps_s(path: Path) -> list[float]:
    """Time of each frame of a multi-frame DICOM clip in seconds after the first.

    They come from FrameTimeVector (0018,1065), increments in ms of which the first is zero, or else from FrameTime
    (0018,1063), the ms between two frames. Pixels are not read.
    """
    asked = f"time stamps of {path}"
    try:
        import pydicom
    except ImportError:
        raise DataError(asked, "pydicom is not installed", "pip install edgedeploy[dicom]") from None
    try:
        data: Any = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_DICOM_TAGS))
        frames = int(data.get("NumberOfFrames", 1))
        increments_ms = data.get("FrameTimeVector")
        vector = [float(value) for value in increments_ms] if isinstance(increments_ms, Sequence) else []
        frame_time_ms = data.get("FrameTime")
    except (
        Exception
    ) as exc:  # a damaged file fails in many ways inside pydicom, which may quote what it says of a patient
        raise DataError(asked, f"pydicom cannot read it ({type(exc).__name__})", "Is it a DICOM file?") from None
    if not 2 <= frames <= MAX_FRAMES:
        raise DataError(asked, f"it has {frames} frames", f"2 to {MAX_FRAMES} are needed")
    if vector:
        if len(vector) != frames:
            raise DataError(
                asked, f"FrameTimeVector has {len(vector)} values for {frames} frames", "Give rate_hz instead"
            )
        return [sum_ms / 1000 for sum_ms in itertools.accumulate(vector[1:], initial=0.0)]
    if frame_time_ms is None or not float(frame_time_ms) > 0:
        found = f"it has neither FrameTimeVector nor a positive FrameTime ({frame_time_ms})"
        raise DataError(asked, found, "Give rate_hz instead")
    return [frame * float(frame_time_ms) / 1000 for frame in range(frames)]
