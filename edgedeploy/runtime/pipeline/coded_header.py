"""The size that a coded image says of itself, read from its header before anything is decoded."""

from __future__ import annotations

import struct

_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_JXL_BITS = (9, 13, 18, 30)
_JXL_FILE = b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a"
_JP2_FILE = b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a"
_MOST_BOXES = 64


def frame_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a frame of JPEG (T.81 B.2.2), JPEG-LS (T.87), JPEG 2000 and HTJ2K (T.800 A.5.1) JPEG XL
    (ISO/IEC 18181-1, SizeHeader), from its markers; None for another kind."""
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:
        width, height, left, top = struct.unpack(">IIII", frame[8:24])
        return height - top, width - left
    if frame[:2] == b"\xff\x0a":
        return _jxl_size(frame[2:14])
    if frame[:12] == _JXL_FILE:
        return frame_size(_jxl_stream(frame))
    if frame[:12] == _JP2_FILE:
        return frame_size(_jp2_stream(frame))
    return _jpeg_size(frame) if frame[:2] == b"\xff\xd8" else None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns = struct.unpack(">HH", frame[at + 5 : at + 9])
            return rows, columns
        at += 2 + struct.unpack(">H", frame[at + 2 : at + 4])[0]
    return None


def _jxl_stream(frame: bytes) -> bytes:
    """The beginning of the codestream in a JPEG XL file (ISO/IEC 18181-2: boxes ``jxlc`` and ``jxlp``); empty for none."""
    at = 12
    for _ in range(_MOST_BOXES):
        if at + 8 > len(frame):
            break
        size, kind = struct.unpack(">I4s", frame[at : at + 8])
        if kind in (b"jxlc", b"jxlp"):
            begins = at + (8 if kind == b"jxlc" else 12)
            stream = frame[begins : begins + 14]
            return stream if stream[:2] == b"\xff\x0a" else b""
        if size < 8:
            break
        at += size
    return b""


def _jp2_stream(frame: bytes) -> bytes:
    """The beginning of the codestream in a JPEG 2000 file (T.800 I.4: box ``jp2c``), which some writers put where DICOM has
    the codestream alone; empty for none."""
    at = 12
    for _ in range(_MOST_BOXES):
        if at + 16 > len(frame):
            break
        size, kind, long = struct.unpack(">I4sQ", frame[at : at + 16])
        if kind == b"jp2c":
            stream = frame[at + (16 if size == 1 else 8) :][:64]
            return stream if stream[:4] == b"\xff\x4f\xff\x51" else b""
        size = long if size == 1 else size
        if size < 8:
            break
        at += size
    return b""


def _jxl_size(header: bytes) -> tuple[int, int] | None:
    """Bits are read from the lowest of each byte on."""
    stream, at = int.from_bytes(header, "little"), 0

    def taken(count: int) -> int:
        nonlocal at
        value = stream >> at & (1 << count) - 1
        at += count
        return value

    small = taken(1)

    def side() -> int:
        return (taken(5) + 1) * 8 if small else taken(_JXL_BITS[taken(2)]) + 1

    rows = side()
    ratio = taken(3)
    if ratio:
        over, under = _JXL_RATIOS[ratio - 1]
        columns = rows * over // under
    else:
        columns = side()
    return (rows, columns) if at <= 8 * len(header) else None
