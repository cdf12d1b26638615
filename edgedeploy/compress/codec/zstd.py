"""zstd, where it is installed: the baseline of every codec here, and of their deltas."""

from __future__ import annotations

from typing import Any, Final

from edgedeploy.errors import TargetUnavailable

LEVEL: Final = 19


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as exc:
        remedy = "Install it using `pip install edgedeploy[codecs]`, or pack without zstd"
        raise TargetUnavailable("weights packed by zstd", "the package 'zstandard' is not installed", remedy) from exc
    return zstandard


def zstd_packed(data: bytes, before: bytes = b"") -> bytes:
    """With ``before`` as a prefix that the receiver has already (`zstd --patch-from`)."""
    zstandard = _zstandard()
    prefix = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if before else None
    size = max(len(data), len(before))
    settings = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=size,
        dict_size=len(before),
        enable_ldm=bool(before),
        window_log=min(27, max(17, (2 * size).bit_length())),
    )
    packer = zstandard.ZstdCompressor(compression_params=settings, dict_data=prefix)
    return bytes(packer.compress(data))


def zstd_unpacked(data: bytes, most_bytes: int) -> bytes:
    """Raises ``ValueError`` for what is none, or would be more than ``most_bytes``."""
    zstandard = _zstandard()
    try:
        told = zstandard.frame_content_size(data)
        if not 0 <= told <= most_bytes:
            raise ValueError(f"{told} bytes, and {most_bytes} at most are read")
        return bytes(zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(data, max_output_size=told))
    except zstandard.ZstdError as exc:
        raise ValueError(f"no zstd frame ({exc})") from exc
