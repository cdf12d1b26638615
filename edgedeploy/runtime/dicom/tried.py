"""JPEG-LS frames, tried in a process of its own before they are decoded here: CharLS 2.4 never comes back from some damaged
ones, and a hang in this process could not be ended.

The process is started at the first frame and stays for the next ones; it ends with this one. ``python -m
edgedeploy.runtime.dicom.tried`` is what it runs: eight bytes of length and a frame in, one byte out.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SYNTAXES = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
MOST_SECONDS = 10.0
"""By the clock, for a frame of no size; each million of pixels has a second more, and the process's start too."""
START_SECONDS = 20.0
MOST_MEMORY_BYTES = 4 << 30
_LENGTH = struct.Struct(">Q")
_END = b"\xff\xd9"
"""Of an image; coded pixels never have it (T.87 A.1: a bit of 0 follows 0xff). Without it CharLS waits for more."""
_SOUND, _DAMAGED = b"\1", b"\0"


class Damaged(Exception):
    """The frame is no JPEG-LS image, or its decoder crashed or did not come back."""


class _Process:
    """One at a time, and one for each process: what was forked must not share its pipes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def ask(self, frame: bytes, seconds: float) -> None:
        with self.lock:
            process = self._running.get(os.getpid())
            if process is None or process.poll() is not None:
                process, seconds = self._started(), seconds + START_SECONDS
            try:
                answer = _asked(process, frame, seconds)
            except OSError:
                answer = None
            if answer is None:
                self._end(process)
                raise Damaged(f"its decoder crashed, or did not come back in {seconds:.0f} s")
            if answer != _SOUND:
                raise Damaged("its decoder refuses it")

    def _started(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[3])
        argv = [sys.executable, "-m", __name__]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root
        )
        self._running = {os.getpid(): process}
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # what was not written yet is of no use
        self._running.pop(os.getpid(), None)


def _asked(process: subprocess.Popen[bytes], frame: bytes, seconds: float) -> bytes | None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(_LENGTH.pack(len(frame)) + frame)
    process.stdin.flush()
    if not select.select([process.stdout], [], [], seconds)[0]:
        return None
    return process.stdout.read(1) or None


_PROCESS = _Process()


def try_frame(frame: bytes, pixels: int) -> None:
    """Returns where CharLS decodes ``frame``, of so many pixels, without an error. Raises :class:`Damaged`."""
    if _END not in frame:
        raise Damaged("it is cut off")
    _PROCESS.ask(frame, MOST_SECONDS + pixels / 1e6)


def main() -> int:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import jpeg_ls

    source, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        head = source.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return 0
        frame = source.read(_LENGTH.unpack(head)[0])
        answers.write(_SOUND if _is_sound(jpeg_ls, frame) else _DAMAGED)
        answers.flush()


def _is_sound(jpeg_ls: Any, frame: bytes) -> bool:
    try:
        jpeg_ls.decode_pixel_data(frame)
    except Exception:  # a decoder of others fails in many ways
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
