"""The boards of a study, one or several of one kind: a queue, one worker per board, and one run at a time on each machine.

    queue          the first free board takes the next variant
    lease          the board's own agent holds the board for each job under a fencing token (``boards/agent/lease.py``);
                   a board that has left the study may store nothing more (:meth:`Crew.check`)
    health check   the board must still be the same machine and of the same kind as at the start (:func:`health_check`)
    quarantine     after several failed jobs in a row a board is set aside, and another board gets its job
    machines       boards on the same machine share one lock, and so do boards on this host (:class:`Machines`)

A latency belongs to one board. Only the ratio to the baseline, which runs interleaved with the candidate on the same
board, can be compared across boards: :func:`require_comparable` refuses other objectives.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from edgedeploy.errors import BoardError, Busy, HostKeyError, Quarantined
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Outcome

FAILURES_BEFORE_QUARANTINE: Final = 3
"""How many jobs in a row a board may fail, each after the retries of :mod:`edgedeploy.boards.care.attempts`."""

LEAVE_S: Final = 5.0
"""How long to wait for the workers at the end of a study. A worker that takes longer is left running; it can store
nothing."""

THREAD_NAME: Final = "board"
"""How the names of the workers' threads begin."""


def interrupt(thread: threading.Thread) -> None:
    """Raise ``KeyboardInterrupt`` in a thread, as soon as it runs Python code: its board is let go, its files are closed."""
    if thread.ident is not None and thread.is_alive():
        raises = ctypes.py_object(KeyboardInterrupt)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), raises)


def abandoned() -> bool:
    """Whether a worker is still at work for a study that is over."""
    return any(thread.name.startswith(f"{THREAD_NAME} ") for thread in threading.enumerate())


class Machines:
    """One reentrant lock per running kernel (see ``BoardInfo.kernel``): what shares a processor takes turns."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.RLock] = {}

    def of(self, kernel: str) -> AbstractContextManager[object]:
        return self._locks.setdefault(kernel, threading.RLock())


@dataclass(frozen=True)
class Post:
    """One board of a crew. ``evaluate`` raises ``BoardError`` when the board fails; ``set_aside`` puts the board into
    quarantine and returns the error that says so."""

    name: str
    evaluate: Callable[[Variant], Outcome]
    set_aside: Callable[[str], BoardError]


@dataclass
class _Job:
    variant: Variant
    future: Future[Outcome] = field(default_factory=Future)
    refused_by: set[str] = field(default_factory=set)


class Crew:
    """A :class:`edgedeploy.search.loop.Evaluator` of boards with one thread each, which mostly waits for its board.

    The caller's thread stays free for Ctrl-C, whichever board works. ``tell`` gets one line per message for people.
    ``waiting`` wraps the time in which the search only waits, ``resting`` that in which a board has no job.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        *,
        tell: Callable[[str], None] = lambda line: None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        resting: Callable[[], AbstractContextManager[None]] = nullcontext,
        limit: int = FAILURES_BEFORE_QUARANTINE,
    ) -> None:
        self._posts = {post.name: post for post in posts}
        self._tell = tell
        self._limit = limit
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._serving = set(self._posts)
        self._at_work: set[threading.Thread] = set()
        self._ended: BoardError | None = None
        self._resting = resting
        self.waiting = waiting

    def __enter__(self) -> Crew:
        self._threads = [
            threading.Thread(target=self._work, args=(post,), name=f"{THREAD_NAME} {post.name}", daemon=True)
            for post in self._posts.values()
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._serving.clear()
            for job in self._jobs:
                job.future.cancel()
            self._changed.notify_all()
            left = list(self._at_work)
        for thread in left:
            interrupt(thread)
        give_up_s = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))

    def slots(self) -> int:
        return max(1, len(self._serving))

    def submit(self, variant: Variant) -> Future[Outcome]:
        job = _Job(variant)
        with self._changed:
            if self._ended is not None:  # since the caller looked, the last board went
                job.future.set_exception(self._ended)
            else:
                self._jobs.append(job)
                self._changed.notify_all()
        return job.future

    def check(self, name: str) -> None:
        """Raises ``Busy`` for a board that has left the study; it is called before anything is stored."""
        if name not in self._serving:
            raise Busy(f"board {name!r}: file a result", "its place in this study is over", "Run it again")

    def _work(self, post: Post) -> None:
        try:
            self._serve(post)
        except KeyboardInterrupt:
            if post.name in self._serving:
                raise
        finally:
            self._at_work.discard(threading.current_thread())

    def _serve(self, post: Post) -> None:
        failed = 0
        while (job := self._next(post)) is not None:
            try:
                outcome = post.evaluate(job.variant)
            except BoardError as exc:
                failed += 1
                if isinstance(exc, (HostKeyError, Quarantined)) or len(self._posts) == 1:
                    self._retire(post, job, exc)
                    return
                if failed >= self._limit:
                    self._retire(post, job, post.set_aside(f"{failed} jobs in a row failed, the last one: {exc.found}"))
                    return
                self._give_back(post, job, exc)
            except BaseException as exc:
                job.future.set_exception(exc)
            else:
                failed = 0
                job.future.set_result(outcome)

    def _next(self, post: Post) -> _Job | None:
        """The first job that this board has not failed, or that every board left in the study has failed. None when the
        board has left the study."""
        with self._changed:
            while post.name in self._serving:
                self._at_work.discard(threading.current_thread())
                for job in self._jobs:
                    if post.name not in job.refused_by or job.refused_by >= self._serving:
                        self._jobs.remove(job)
                        self._at_work.add(threading.current_thread())
                        return job
                with self._resting():
                    self._changed.wait()
            return None

    def _give_back(self, post: Post, job: _Job, exc: BoardError) -> None:
        self._tell(f"board {post.name}: {exc}; {job.variant.label} goes back to the queue")
        with self._changed:
            job.refused_by.add(post.name)
            self._jobs.appendleft(job)
            self._changed.notify_all()

    def _retire(self, post: Post, job: _Job, exc: BoardError) -> None:
        """Remove the board from the study; when it was the last one, the study ends. A study's only board is not set aside:
        its error is the study's."""
        with self._changed:
            self._serving.discard(post.name)
            left = len(self._serving)
        if left:
            self._tell(f"{exc}; the study goes on with {left} of {len(self._posts)} boards")
            self._give_back(post, job, exc)
            return
        with self._changed:
            self._ended = exc
            lost = [job, *self._jobs]
            self._jobs.clear()
        for one in lost:
            one.future.set_exception(exc)
