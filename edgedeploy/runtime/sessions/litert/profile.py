"""Times each operator of a LiteRT model, through the C interface of the library in ``ai-edge-litert``.

LiteRT's Python API has no profiler, and the interpreter of the timed queries cannot be given one. The compiled model of
the same release can: it is loaded for the profile only, with the same kernels and threads. It is known to work from
release 2.3 on. Symbols, statuses and the layout of the results are checked, and a failed check raises a fault with the
reason.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault

OLDEST = (2, 3)
CPU = 1
WRITE = 1

BUILT_IN, DELEGATED = 2, 8
"""Kinds of event: an operator by the library's own kernel, and one by XNNPACK."""

_OPERATORS = (BUILT_IN, DELEGATED)
_KINDS = frozenset(1 << bit for bit in range(9))
_SOURCES = frozenset(range(3))
_MEMORY_WORDS = (3, 4, 2)
"""Possible lengths in words of a memory record, which depend on the release; the usual one first. An event holds
two."""

_MOST_WORDS = 32
_Pointer = ctypes.c_void_p


@dataclass(frozen=True)
class OperatorEvent:
    """One operator, in the order of execution. ``index`` is the file's node for a built-in kernel, else XNNPACK's
    number within the partition."""

    tag: str
    kind: int
    index: int
    ns: int


class _Layout(ctypes.Structure):
    """A tensor's rank (7 bits) and whether it has strides (1 bit), then dimensions and strides."""

    _fields_ = (("bits", ctypes.c_uint), ("sizes", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8))


class _TensorType(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int), ("layout", _Layout))


def profile(
    path: Path, threads: int, feeds: Sequence[Mapping[str, Any]], output_bytes: Mapping[str, int]
) -> list[OperatorEvent]:
    """Median time of each operator over all ``feeds`` but the first: arrays by input name, in the file's own types.

    ``output_bytes`` are the real sizes of the outputs: if a file declares other sizes, a compiled model would write
    past its buffers. Raises :class:`RuntimeFault` if this release gives no times.
    """
    with ExitStack() as stack:
        model = _Model(_library(), path, threads, stack)
        model.check_outputs(output_bytes)
        runs = [model.run(feed) for feed in feeds]
    counted = runs[1:] or runs
    shapes = {tuple((event.tag, event.kind, event.index) for event in run) for run in counted}
    if len(shapes) != 1:
        raise RuntimeFault("run_failed", "LiteRT ran other operators from one query to the next")
    return [
        OperatorEvent(first.tag, first.kind, first.index, round(statistics.median(run[place].ns for run in counted)))
        for place, first in enumerate(counted[0])
    ]


def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("ai_edge_litert")
    if found is None or found.origin is None:
        raise RuntimeFault("run_failed", "this runtime tells no times of layers: ai-edge-litert 2.3 and newer do")
    version = importlib.metadata.version("ai-edge-litert")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise RuntimeFault("run_failed", f"ai-edge-litert {version} tells no times of layers: 2.3 and newer do")
    return ctypes.CDLL(str(Path(found.origin).with_name("libLiteRt.so")))


class _Model:
    """A compiled model with a profiler. ``stack`` releases what it creates, in reverse order."""

    def __init__(self, library: ctypes.CDLL, path: Path, threads: int, stack: ExitStack) -> None:
        self._library = library
        self._libc = ctypes.CDLL(None)
        self._stack = stack
        self._environment = self._create("Environment", 0, None)
        model = self._made("LiteRtCreateModelFromFile", self._environment, str(path).encode())
        self._release_with("LiteRtDestroyModel", model)
        options = self._create("Options")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        self._add_options(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._add_options(options, b"xnnpack", f"num_threads = {threads}\n".encode())
        self._model = self._create("CompiledModel", self._environment, model, options)
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._model)
        if not self._profiler:
            raise RuntimeFault("run_failed", "LiteRT was asked for a profiler and made none")
        signature = self._made("LiteRtGetModelSignature", model, ctypes.c_size_t(0))
        self._inputs = dict(self._tensors("Input", signature))
        self._outputs = dict(self._tensors("Output", signature))

    def check_outputs(self, output_bytes: Mapping[str, int]) -> None:
        for name, buffer in self._outputs.items():
            size = self._size(buffer)
            if size != output_bytes.get(name):
                found = f"output {name!r} takes {output_bytes.get(name)} bytes, the file says {size}"
                raise RuntimeFault("run_failed", f"{found}: no times of layers")

    def run(self, feed: Mapping[str, Any]) -> list[OperatorEvent]:
        for name, buffer in self._inputs.items():
            self._fill(name, buffer, feed[name])
        inputs, outputs = (_array(list(buffers.values())) for buffers in (self._inputs, self._outputs))
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        sizes = [ctypes.c_size_t(len(buffers)) for buffers in (inputs, outputs)]
        self._call("LiteRtRunCompiledModel", self._model, ctypes.c_size_t(0), sizes[0], inputs, sizes[1], outputs)
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        words = (ctypes.c_uint64 * (count.value * _MOST_WORDS))()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, words)
        return read_events(words, count.value, lambda address: ctypes.string_at(address).decode(errors="replace"))

    def _tensors(self, kind: str, signature: Any) -> list[tuple[str, Any]]:
        """Names and buffers of the model's inputs or outputs."""
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{kind}s", signature, ctypes.byref(count))
        found = []
        for number in range(count.value):
            place = ctypes.c_size_t(number)
            name = self._made(f"LiteRtGetSignature{kind}Name", signature, place)
            tensor = self._made(f"LiteRtGetSignature{kind}TensorByIndex", signature, place)
            layout = _TensorType()
            self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(layout))
            needs = self._made(
                f"LiteRtGetCompiledModel{kind}BufferRequirements", self._model, ctypes.c_size_t(0), place
            )
            buffer = self._made(
                "LiteRtCreateManagedTensorBufferFromRequirements", self._environment, ctypes.byref(layout), needs
            )
            self._release_with("LiteRtDestroyTensorBuffer", buffer)
            found.append((ctypes.string_at(name).decode(errors="replace"), buffer))
        return found

    def _fill(self, name: str, buffer: Any, value: Any) -> None:
        size = self._size(buffer)
        if size != value.nbytes:
            raise RuntimeFault("run_failed", f"input {name!r} has {value.nbytes} bytes, the file says {size}")
        address = _Pointer()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), WRITE)
        ctypes.memmove(address, _Pointer(value.ctypes.data), value.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _size(self, buffer: Any) -> int:
        size = ctypes.c_size_t()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        return size.value

    def _add_options(self, options: Any, name: bytes, text: bytes) -> None:
        """Add options as text in memory that C allocated, because the library frees it."""
        self._libc.strdup.restype = _Pointer
        release = ctypes.cast(self._libc.free, _Pointer)
        made = self._made("LiteRtCreateOpaqueOptions", name, _Pointer(self._libc.strdup(text)), release)
        self._call("LiteRtAddOpaqueOptions", options, made)

    def _create(self, kind: str, *arguments: Any) -> Any:
        made = self._made(f"LiteRtCreate{kind}", *arguments)
        self._release_with(f"LiteRtDestroy{kind}", made)
        return made

    def _release_with(self, name: str, handle: Any) -> None:
        function = getattr(self._library, name)
        function.restype = None
        self._stack.callback(function, handle)

    def _made(self, name: str, *arguments: Any) -> Any:
        """Call a function that writes its result through its last argument; returns the result."""
        made = _Pointer()
        self._call(name, *arguments, ctypes.byref(made))
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as exc:
            raise RuntimeFault("run_failed", f"this release of LiteRT has no {name}: no times of layers") from exc
        status = function(*arguments)
        if status != 0:
            raise RuntimeFault("run_failed", f"{name} of LiteRT answered {status}: no times of layers")


def _array(handles: Sequence[Any]) -> Any:
    return (_Pointer * len(handles))(*handles)


def read_events(words: Any, count: int, text: Callable[[int], str]) -> list[OperatorEvent]:
    """The operators among ``count`` events. Each event in ``words`` is: tag, kind, start, microseconds, memory before
    and after, two numbers, source. Raises :class:`RuntimeFault` when no known length of the memory record fits all
    events."""
    for memory in _MEMORY_WORDS:
        size = 7 + 2 * memory
        rows = [words[place * size : (place + 1) * size] for place in range(count)]
        if rows and all(_sound(row) for row in rows):
            return [
                OperatorEvent(text(row[0]), _low(row[1]), row[-3], 1000 * row[3])
                for row in rows
                if _low(row[1]) in _OPERATORS
            ]
    raise RuntimeFault("run_failed", "LiteRT writes its profile in a layout that is not known here")


def _sound(row: Sequence[int]) -> bool:
    """Whether a row looks like an event: it has a tag, a known kind and source, and an operator takes at most an
    hour."""
    kind = _low(row[1])
    known = row[0] > 0xFFFF and kind in _KINDS and _low(row[-1]) in _SOURCES
    return known and (kind not in _OPERATORS or row[3] < 3.6e9)


def _low(word: int) -> int:
    """The lower half of a word: an enumeration uses only that, and the upper half is undefined."""
    return word & 0xFFFFFFFF
