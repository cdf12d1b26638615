"""Sites as processes of this host: a grid that starts one for each, and the loop that such a process runs.

It is for sites whose data lie on one host, and for tests that kill them. Messages are Flower's own, as its protocol writes
them, over the pipes of the process: eight bytes of length, then the message. A process that dies is told as a site's error;
it is started again for the next message. The apps are Flower's ClientApps.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from edgedeploy.federated.grid import RUN_ID, LocalGrid

if TYPE_CHECKING:
    App = Callable[[Message, Context], Message]

MOST_MESSAGE_BYTES: Final = 1 << 30
_LENGTH: Final = struct.Struct(">Q")


class ProcessGrid(LocalGrid):
    """``commands`` are the sites' processes by node number, as argument lists; each runs :func:`serve`. Use it in ``with``:
    its processes end with it."""

    def __init__(self, commands: Mapping[int, Sequence[str]]) -> None:
        super().__init__({})
        self._commands = {node: list(command) for node, command in commands.items()}
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> ProcessGrid:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def get_node_ids(self) -> Iterable[int]:
        return list(self._commands)

    def pids(self) -> dict[int, int]:
        """Of the processes that were started, by node."""
        return {node: process.pid for node, process in self._running.items()}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """All sites work at once; one that does not answer in ``timeout`` seconds is ended, and its reply is an error."""
        deadline = None if timeout is None else time.monotonic() + timeout
        asked = list(messages)
        faults = {message.metadata.dst_node_id: self._started(message.metadata.dst_node_id) for message in asked}
        sent = [(message, faults[message.metadata.dst_node_id] or self._sent(message, deadline)) for message in asked]
        return [self._reply(message, fault, deadline) for message, fault in sent]

    def _started(self, node: int) -> str:
        """Why the site's process cannot be started; empty where it runs. All are started before any is written to: a message
        that is larger than a pipe waits until its process reads."""
        process = self._running.get(node)
        try:
            if process is None or process.poll() is not None:
                command = self._commands[node]
                self._running[node] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as exc:
            return f"its process cannot be started ({exc})"
        return ""

    def _sent(self, message: Message, deadline: float | None) -> str:
        """Why it could not be sent; empty where it was. A site that is stopped reads nothing."""
        try:
            process = self._running[message.metadata.dst_node_id]
            assert process.stdin is not None
            data = message_to_proto(message).SerializeToString()
            os.set_blocking(process.stdin.fileno(), False)
            _write(process.stdin.fileno(), _LENGTH.pack(len(data)) + data, deadline)
        except OSError as exc:
            return f"its process cannot be reached ({exc})"
        return ""

    def _reply(self, message: Message, fault: str, deadline: float | None) -> Message:
        node = message.metadata.dst_node_id
        try:
            if fault:
                raise ConnectionError(fault)
            stdout = self._running[node].stdout
            assert stdout is not None
            return _read(stdout.fileno(), deadline)
        except Exception as exc:  # a site's process may write anything
            process = self._running.pop(node, None)
            if process is not None:
                process.kill()
                process.wait()
            reason = f"{type(exc).__name__}: {exc}"
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)


def serve(app: App, node: int) -> None:
    """What a site's process runs: answer messages of standard input on standard output until it ends. What the app prints
    goes to standard error. Raises nothing: what the app raises is its answer."""
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    context = Context(RUN_ID, node, {}, RecordDict(), {})
    while True:
        try:
            message = _read(0, None)
        except ConnectionError:
            return
        try:
            reply = app(message, context)
        except Exception as exc:  # as a SuperNode tells it
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            reply = Message(Error(code, f"{type(exc).__name__}: {exc}"), reply_to=message)
        data = message_to_proto(reply).SerializeToString()
        try:
            _write(answers, _LENGTH.pack(len(data)) + data, None)
        except BrokenPipeError:
            return  # the server is gone: what was trained for it is of no use


def _read(descriptor: int, deadline: float | None) -> Message:
    """The next message. Raises ``ConnectionError`` where the other side is gone or too slow, ``ValueError`` for a length
    that no message has."""
    (length,) = _LENGTH.unpack(_bytes(descriptor, _LENGTH.size, deadline))
    if length > MOST_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes, at most {MOST_MESSAGE_BYTES} are read")
    found: Any = message_from_proto(ProtoMessage.FromString(_bytes(descriptor, length, deadline)))
    assert isinstance(found, Message)
    return found


def _bytes(descriptor: int, count: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    while count:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left_s)[0]:
            raise ConnectionError("no answer in time")
        part = os.read(descriptor, min(count, 1 << 20))
        if not part:
            raise ConnectionError("its process ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _write(descriptor: int, data: bytes, deadline: float | None) -> None:
    """Raises ``ConnectionError`` where the other side does not read in time, if this end of the pipe does not block."""
    left = memoryview(data)
    while left:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([], [descriptor], [], left_s)[1]:
            raise ConnectionError("it does not read what it is sent")
        left = left[os.write(descriptor, left) :]
