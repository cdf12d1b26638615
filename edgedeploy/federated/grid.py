"""A grid of Flower inside this process: messages reach the sites' apps as copies, one after the other.

Flower's simulation needs Ray, which starts a cluster of processes; this does not, and a site that fails is told as
Flower's SuperLink tells it: by a reply that holds an error. It is for tests, for benchmarks and for sites whose folders all
lie on one host. The apps are Flower's ClientApps.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.federated.needs import flower

with flower("a grid of sites"):
    from flwr.app import Context, Error, Message, RecordDict
    from flwr.common.constant import ErrorCode
    from flwr.serverapp.grid import Grid
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

if TYPE_CHECKING:
    App = Callable[[Message, Context], Message]

RUN_ID: Final = 1
SERVER_ID: Final = 1


class LocalGrid(Grid):
    """``apps`` are the sites' ClientApps by node number; each keeps a context of its own over all messages. With ``seen``
    every message and reply is appended to it as it crossed the grid."""

    def __init__(self, apps: Mapping[int, App], seen: list[Message] | None = None) -> None:
        self._apps = dict(apps)
        self._contexts = {node: Context(RUN_ID, node, {}, RecordDict(), {}) for node in apps}
        self._run = Run.create_empty(RUN_ID)
        self._seen = seen

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError("messages are answered at once: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError("messages are answered at once: use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [self._answered(copy.deepcopy(message)) for message in messages]

    def _answered(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        self._note(message)
        try:
            reply = copy.deepcopy(self._apps[node](message, self._contexts[node]))
        except Exception as exc:  # what a site's app raises is told by its reply, as a SuperNode does
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            reply = Message(Error(code, f"{type(exc).__name__}: {exc}"), reply_to=message)
        self._note(reply)
        return reply

    def _note(self, message: Message) -> None:
        if self._seen is not None:
            self._seen.append(copy.deepcopy(message))


class WatchedGrid(Grid):
    """Another grid, whose replies with errors are kept: Flower's workflow drops them and goes on. ``errors`` are those of
    the first stage that had any: later ones may be its consequences."""

    def __init__(self, inner: Grid) -> None:
        self._inner = inner
        self.errors: dict[int, str] = {}

    def set_run(self, run: Run) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        return self._inner.run

    def create_message(self, *args: Any, **options: Any) -> Message:
        return self._inner.create_message(*args, **options)

    def get_node_ids(self) -> Iterable[int]:
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        sent = list(messages)
        replies = list(self._inner.send_and_receive(sent, timeout=timeout))
        answered = {reply.metadata.src_node_id for reply in replies}
        silent = {message.metadata.dst_node_id for message in sent} - answered
        failed: dict[int, str] = dict.fromkeys(silent, "no answer in time")
        failed |= {reply.metadata.src_node_id: str(reply.error.reason) for reply in replies if reply.has_error()}
        self.errors = self.errors or failed
        return replies


@contextmanager
def server_identity() -> Iterator[None]:
    """Who sends messages in the block, where no SuperLink has said so: Flower keeps it once per process."""
    names = ("_run_id", "_node_id", "_task_id")
    before = [getattr(TaskIdentity, name) for name in names]
    if before[0] is None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER_ID, RUN_ID
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(TaskIdentity, name, value)


@contextmanager
def quiet_flower() -> Iterator[None]:
    """Without the lines that Flower logs about each round: what counts is raised, or returned."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
