"""The boards of a study, one or several of one kind: a queue, one worker per board, and one run at a time on each machine.

    queue          the first free board takes the next variant
    lease          the board's own agent holds the board for each job under a fencing token (``boards/agent/lease.py``);
                   a board that has left the study may store nothing more (:meth:`Crew.check`)
    health check   the board must still be the same machine and of the same kind as at the start (:func:`health_check`)
    absence        a board that does not answer gives its job back and is waited for, while the others go on
    quarantine     after several failed jobs in a row a board is set aside, and another board gets its job
    machines       boards on the same machine share one lock, and so do boards on this host (:class:`Machines`)
    ahead          while the boards are at work, this host trains the model of the next variant in the queue

A latency belongs to one board. Only the ratio to the baseline, which runs interleaved with the candidate on the same
board, can be compared across boards: :func:`require_comparable` refuses other objectives.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from edgedeploy.errors import BoardError, Busy, HostKeyError, Quarantined, Unreachable
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Outcome

LOG: Final = logging.getLogger(__name__)

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
    """One reentrant lock per running kernel, or per cores that are leased of it (see ``BoardInfo.seat``): what shares a
    processor takes turns."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.RLock] = {}

    def of(self, kernel: str) -> AbstractContextManager[object]:
        return self._locks.setdefault(kernel, threading.RLock())


@dataclass(frozen=True)
class Post:
    """One board of a crew. ``evaluate`` raises ``BoardError`` when the board fails; ``set_aside`` puts the board into
    quarantine and returns the error that says so. ``come`` waits, by the pauses that it is given, until the board answers,
    and says whether it had been away; it raises when the board is to be left out. A board that is ``absent`` has to come
    before it gets a job; without ``come`` none is waited for."""

    name: str
    evaluate: Callable[[Variant], Outcome]
    set_aside: Callable[[str], BoardError]
    come: Callable[[Callable[[float], None]], bool] | None = None
    absent: bool = False


class _Left(Exception):
    """The study is over for a board that is waited for."""


@dataclass
class _Job:
    variant: Variant
    future: Future[Outcome] = field(default_factory=Future)
    prepared: bool = False
    refused_by: set[str] = field(default_factory=set)


class Crew:
    """A :class:`edgedeploy.search.loop.Evaluator` of boards with one thread each, which mostly waits for its board.

    The caller's thread stays free for Ctrl-C, whichever board works. ``tell`` gets one line per message for people.
    ``waiting`` wraps the time in which the search only waits, ``resting`` that in which a board has no job. ``ahead``
    prepares a variant that waits for a board: the crew then takes one more than it has boards. What it raises is not heard
    of: the board's turn finds the same.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        *,
        tell: Callable[[str], None] = lambda line: None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        resting: Callable[[], AbstractContextManager[None]] = nullcontext,
        limit: int = FAILURES_BEFORE_QUARANTINE,
        ahead: Callable[[Variant], None] | None = None,
    ) -> None:
        self._posts = {post.name: post for post in posts}
        self._tell = tell
        self._limit = limit
        self._jobs: deque[_Job] = deque()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._serving = set(self._posts)
        self._away: set[str] = set()
        self._at_work: set[threading.Thread] = set()
        self._ended_by: Exception | None = None
        self._resting = resting
        self._ahead = ahead
        self.waiting = waiting

    def __enter__(self) -> Crew:
        self._threads = [
            threading.Thread(target=self._work, args=(post,), name=f"{THREAD_NAME} {post.name}", daemon=True)
            for post in self._posts.values()
        ]
        if self._ahead is not None:
            self._threads.append(
                threading.Thread(target=self._prepare, args=(self._ahead,), name=f"{THREAD_NAME} ahead", daemon=True)
            )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._serving.clear()
            for job in self._jobs:
                job.future.cancel()
            self._changed.notify_all()
            for thread in self._at_work:
                interrupt(thread)
        give_up_s = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))

    def slots(self) -> int:
        return max(1, len(self._serving - self._away)) + (self._ahead is not None)

    def submit(self, variant: Variant) -> Future[Outcome]:
        job = _Job(variant)
        with self._lock:
            if self._ended_by is not None:  # since the caller looked, the last board went
                job.future.set_exception(self._ended_by)
                return job.future
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
            self._rest()
        except KeyboardInterrupt:
            if post.name in self._serving:
                raise

    def _rest(self) -> None:
        """Nobody interrupts the calling thread from here on until it has a job: an interrupt that came after its work would
        end it anywhere."""
        with self._lock:
            self._at_work.discard(threading.current_thread())

    def _serve(self, post: Post) -> None:
        if post.absent and self._came(post) is None:
            return
        failed = 0
        while (job := self._next(post)) is not None:
            try:
                outcome = post.evaluate(job.variant)
            except BoardError as exc:
                waits = isinstance(exc, Unreachable) and post.come is not None
                if isinstance(exc, (HostKeyError, Quarantined)) or (len(self._posts) == 1 and not waits):
                    self._retire(post, job, exc)
                    return
                if waits:
                    self._give_back(post, job, exc)
                    was_away = self._came(post)
                    if was_away is None:
                        return
                    failed, left = failed + (not was_away), None
                else:
                    failed, left = failed + 1, job
                if failed >= self._limit:
                    cause = f"{failed} jobs in a row failed, the last one: {exc.found}"
                    self._retire(post, left, post.set_aside(cause))
                    return
                if left is not None:
                    self._give_back(post, left, exc)
            except KeyboardInterrupt as exc:
                job.future.set_exception(exc)
                return  # the study ends, and the variants that wait come in their order when it goes on
            except BaseException as exc:
                job.future.set_exception(exc)
            else:
                failed = 0
                job.future.set_result(outcome)

    def _prepare(self, ahead: Callable[[Variant], None]) -> None:
        """The work of the thread that is ahead of the boards, until the study is over."""
        try:
            while (job := self._to_prepare()) is not None:
                try:
                    ahead(job.variant)
                except Exception as exc:  # the board's turn finds the same
                    LOG.debug("%s ahead of its turn: %s", job.variant.label, exc)
        except KeyboardInterrupt:
            if self._serving:
                raise

    def _to_prepare(self) -> _Job | None:
        """The first job that waits for a board and was not prepared. None when no board is left in the study."""
        with self._lock:
            self._rest()
            while self._serving:
                for job in self._jobs:
                    if not job.prepared:
                        job.prepared = True
                        self._at_work.add(threading.current_thread())
                        return job
                with self.waiting():
                    self._changed.wait()
            return None

    def _came(self, post: Post) -> bool | None:
        """Waits for a board: whether it was away; None when it has left the study."""
        assert post.come is not None
        with self._lock:
            self._away.add(post.name)
        try:
            return post.come(partial(self._pause, post.name))
        except _Left:
            return None
        except Exception as exc:  # nobody else would hear of it
            self._retire(post, None, exc)
            return None
        finally:
            with self._lock:
                self._away.discard(post.name)
                self._changed.notify_all()

    def _pause(self, name: str, pause_s: float) -> None:
        with self._lock:
            if self._changed.wait_for(lambda: name not in self._serving, pause_s):
                raise _Left

    def _next(self, post: Post) -> _Job | None:
        """The first job that this board has not failed, or that every board left in the study has failed. None when the
        board has left the study."""
        with self._lock:
            self._rest()
            while post.name in self._serving:
                for job in self._jobs:
                    if post.name not in job.refused_by or job.refused_by >= self._serving:
                        self._jobs.remove(job)
                        self._at_work.add(threading.current_thread())
                        return job
                with self._resting():
                    self._changed.wait()
            return None

    def _give_back(self, post: Post, job: _Job, exc: Exception) -> None:
        self._tell(f"board {post.name}: {exc}; {job.variant.label} goes back to the queue")
        with self._lock:
            job.refused_by.add(post.name)
            self._jobs.appendleft(job)
            self._changed.notify_all()

    def _retire(self, post: Post, job: _Job | None, exc: Exception) -> None:
        """Remove the board, which may have a job, from the study; when it was the last one, the study ends. A study's only
        board is not set aside: its error is the study's."""
        with self._lock:
            self._serving.discard(post.name)
            left = len(self._serving)
            if not left:
                self._ended_by = exc
                lost = [*([job] if job else ()), *self._jobs]
                self._jobs.clear()
        if not left:
            for one in lost:
                one.future.set_exception(exc)
            return
        self._tell(f"{exc}; the study goes on with {left} of {len(self._posts)} boards")
        if job is not None:
            self._give_back(post, job, exc)
        with self._lock:
            self._changed.notify_all()
