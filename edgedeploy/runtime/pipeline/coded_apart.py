"""Bytes of strangers, decoded in a process of its own with limits on its time and memory: decoders have loops that damaged
bytes never leave (CharLS 2.4 does on JPEG-LS), and answers that they should not have given.

``python -m edgedeploy.runtime.pipeline.coded_apart CODEC BITS SHAPE...`` reads the bytes and writes the pixels.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Sequence

from edgedeploy.runtime.pipeline.codecs import MOST_BYTES, Codec, CodecError, codec_of, decode
from edgedeploy.runtime.pipeline.numpy_later import np

MOST_SECONDS = 10
MOST_MEMORY_BYTES = 4 << 30
_REFUSED = 3


def decode_apart(
    codec: Codec, data: bytes, shape: Sequence[int], bits: int = 8, seconds: int = MOST_SECONDS
) -> np.ndarray:
    """As :func:`edgedeploy.runtime.pipeline.codecs.decode`, within ``seconds`` of processor time, twice that of the clock
    and five of start, and 4 GiB. Raises :class:`CodecError` where a limit is met, too."""
    if len(data) > MOST_BYTES:
        raise CodecError(f"{codec.name}: {len(data)} bytes, at most {MOST_BYTES} are decoded")
    argv = [sys.executable, "-m", __name__, codec.name, str(bits), str(seconds), *map(str, shape)]
    root = str(Path(__file__).resolve().parents[3])
    try:
        done = subprocess.run(argv, input=data, capture_output=True, timeout=2 * seconds + 5, cwd=root, check=False)
    except subprocess.TimeoutExpired:
        raise CodecError(
            f"{codec.name}: decoding took longer than {2 * seconds + 5} s: the bytes are damaged"
        ) from None
    if done.returncode == _REFUSED:
        raise CodecError(done.stderr.decode("utf-8", "replace").strip().splitlines()[-1][:300])
    dtype = np.uint8 if bits == 8 else np.uint16
    if done.returncode != 0 or len(done.stdout) != int(np.prod(shape)) * np.dtype(dtype).itemsize:
        raise CodecError(
            f"{codec.name}: its decoder ended by {done.returncode}, out of time, memory or by a crash: the bytes are damaged"
        )
    return np.frombuffer(done.stdout, dtype).reshape(tuple(shape))


def main(arguments: Sequence[str]) -> int:
    name, bits, seconds, *sides = arguments
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found = decode(codec_of(name), sys.stdin.buffer.read(), tuple(map(int, sides)), int(bits))
    except (ValueError, MemoryError) as exc:
        sys.stderr.write(f"{exc}\n")
        return _REFUSED
    sys.stdout.buffer.write(found.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
