"""Runs a user's network on the very cases that this host is about to run it on, first in a process with limits.

A sound network on made-up inputs may never end on others: the trips of a ``Loop`` and the size of an array inside it can
depend on what comes in. So no case reaches a session of this process before it has been run within limits on memory and
processor time, without a network.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import IO, Any, Final

import numpy as np

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Array
from edgedeploy.reference.export import Reference, reference_outputs
from edgedeploy.reference.ready import child_command
from edgedeploy.reference.safety import Limits, run_limited
from edgedeploy.reference.take_in import CPU_S, memory_bytes
from edgedeploy.runtime.faults import lacks_memory

TOGETHER_BYTES: Final = 64 << 20
"""Cases that are run by one process: so many bytes of inputs, or a few more."""

MORE_EACH_TIME: Final = 8
"""Many builds ask for the first case alone. Each process gets this many times as many cases as the one before it."""


class Apart:
    """Cases of one task, in their order, each run apart before it comes out, and once for each network."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def first(self, reference: Reference, feeds: Iterable[dict[str, Array]]) -> Iterator[dict[str, Array]]:
        """``feeds``, as they are. Raises what :func:`run_apart` raises."""
        waiting = iter(feeds)
        yield from islice(waiting, self._known.get(reference.sha256, 0))
        count = 1
        while group := list(_group(waiting, count)):
            run_apart(reference, group)
            self._known[reference.sha256] = self._known.get(reference.sha256, 0) + len(group)
            yield from group
            count *= MORE_EACH_TIME


def _group(feeds: Iterator[dict[str, Array]], count: int) -> Iterator[dict[str, Array]]:
    taken_bytes = 0
    for feed in islice(feeds, count):
        yield feed
        taken_bytes += sum(value.nbytes for value in feed.values())
        if taken_bytes >= TOGETHER_BYTES:
            return


def run_apart(reference: Reference, feeds: Iterable[Mapping[str, Array]], limits: Limits | None = None) -> None:
    """Run every case in a process with limits; what comes out is thrown away. ``limits.cpu_s`` counts for each case.

    Raises ``DataError`` when the network does not end, or grows, on one of them.
    """
    limits = limits or Limits(memory_bytes=memory_bytes(reference.path), cpu_s=CPU_S, each=True)
    asked = f"model {reference.path.name} on the task's inputs"
    with tempfile.TemporaryFile(prefix="edgedeploy-") as stream:
        order = {"folder": str(reference.path.parent.absolute()), "cpu_s": limits.cpu_s, **reference.as_json()}
        stream.write(json.dumps(order).encode() + b"\n")
        for feed in feeds:
            for spec in reference.inputs:
                np.lib.format.write_array(stream, np.ascontiguousarray(feed[spec.name]), allow_pickle=False)
        stream.seek(0)
        answer: dict[str, Any] = json.loads(run_limited(asked, child_command(__name__), limits, stream))
    if answer:
        raise DataError(asked, str(answer["found"]), "Do not load it; export it again from its source")


# -- in the process with limits


def main() -> None:
    """An order as a line of JSON on standard input and the arrays of each case after it; the answer is an object, empty
    when all went well."""
    import os
    import sys
    from pathlib import Path

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    source = sys.stdin.buffer
    order: dict[str, Any] = json.loads(source.readline())
    reference = Reference.from_json(order, Path(order["folder"]))
    answer = {}
    try:
        for _ in reference_outputs(reference, _cases(source, reference, order["cpu_s"])):
            pass
    except Exception as exc:  # onnxruntime's exceptions derive from Exception alone
        text = (str(exc) or type(exc).__name__).splitlines()[0][:300]
        answer = {"found": "it asks for more memory than it may" if lacks_memory(exc) else f"it cannot be run: {text}"}
    answers.write(json.dumps(answer).encode())
    answers.flush()
    os._exit(0)  # destructors of runtimes have nothing to add


def _cases(source: IO[bytes], reference: Reference, cpu_s: int) -> Iterator[dict[str, Array]]:
    """The cases of the order. Each may take ``cpu_s`` of processor time, and some times that beside other work."""
    import resource
    import signal

    from edgedeploy.reference.safety import patience_s

    while source.peek(1):  # type: ignore[attr-defined]
        feed = {spec.name: np.lib.format.read_array(source, allow_pickle=False) for spec in reference.inputs}
        spent = resource.getrusage(resource.RUSAGE_SELF)
        used_s = round(spent.ru_utime + spent.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used_s + cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        signal.alarm(patience_s(cpu_s))
        yield feed
