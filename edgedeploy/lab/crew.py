"""Several boards of one kind in one study: a queue, one worker a board, and no machine that measures twice at once.

    queue          a variant goes to whichever board is free first
    lease          the board's own agent holds the board for each job under a fencing token (``boards/agent/lease.py``);
                   here a post that is over may file nothing any more (:meth:`Crew.check`)
    health check   the board that answers must be the machine and of the kind it was at the start (:func:`health_check`)
    quarantine     after so many failed jobs in a row a board is set aside, and its job goes to another one
    machines       boards that are one machine, or this one, share one lock (:class:`Machines`)

A latency is one board's own. What compares across boards is the ratio to the baseline, which runs interleaved with the
candidate on the same board: :func:`require_comparable` holds a study's objectives to that.
"""

from __future__ import annotations

import threading
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
"""Jobs in a row that a board failed at, each after the attempts of :mod:`edgedeploy.boards.care.attempts`."""

LEAVE_S: Final = 5.0
"""How long the workers may take to notice that the study is over, before they are left behind; they can file nothing."""


class Machines:
    """One lock a machine, by its identity; whoever holds it may take it again."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.RLock] = {}

    def of(self, identity: str) -> AbstractContextManager[object]:
        return self._locks.setdefault(identity, threading.RLock())


@dataclass(frozen=True)
class Post:
    """One board's place in a crew. ``evaluate`` raises ``BoardError`` for what is the board's; ``set_aside`` puts the board
    into quarantine and returns the error that says so."""

    name: str
    evaluate: Callable[[Variant], Outcome]
    set_aside: Callable[[str], BoardError]


@dataclass
class _Job:
    variant: Variant
    future: Future[Outcome] = field(default_factory=Future)
    refused_by: set[str] = field(default_factory=set)


class Crew:
    """A :class:`edgedeploy.search.loop.Crew` of boards, one thread each: measuring is waiting for a board.

    ``tell`` hears one line per thing worth knowing. ``waiting`` wraps the time in which the search only waits.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        *,
        tell: Callable[[str], None] = lambda line: None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        limit: int = FAILURES_BEFORE_QUARANTINE,
    ) -> None:
        self._posts = {post.name: post for post in posts}
        self._tell = tell
        self._limit = limit
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._serving = set(self._posts)
        self.waiting = waiting

    def __enter__(self) -> Crew:
        self._threads = [
            threading.Thread(target=self._serve, args=(post,), name=f"board {post.name}", daemon=True)
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
        for thread in self._threads:
            thread.join(LEAVE_S)

    def slots(self) -> int:
        return max(1, len(self._serving))

    def submit(self, variant: Variant) -> Future[Outcome]:
        job = _Job(variant)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
        return job.future

    def check(self, name: str) -> None:
        """The fence: raises ``Busy`` for a post that is over, before it files anything."""
        if name not in self._serving:
            raise Busy(f"board {name!r}: file a result", "its place in this study is over", "Run it again")

    def _serve(self, post: Post) -> None:
        failed = 0
        while (job := self._next(post)) is not None:
            try:
                outcome = post.evaluate(job.variant)
            except BoardError as exc:
                failed += 1
                if isinstance(exc, (HostKeyError, Quarantined)):
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
        """A job that this board has not failed at, or the oldest when every board has; None when the post is over."""
        with self._changed:
            while post.name in self._serving:
                for job in self._jobs:
                    if post.name not in job.refused_by or job.refused_by >= self._serving:
                        self._jobs.remove(job)
                        return job
                self._changed.wait()
            return None

    def _give_back(self, post: Post, job: _Job, exc: BoardError) -> None:
        self._tell(f"board {post.name}: {exc}; {job.variant.label} goes back to the queue")
        with self._changed:
            job.refused_by.add(post.name)
            self._jobs.appendleft(job)
            self._changed.notify_all()

    def _retire(self, post: Post, job: _Job, exc: BoardError) -> None:
        """The board leaves the study; the last one takes the study with it."""
        with self._changed:
            self._serving.discard(post.name)
            left = len(self._serving)
        if left:
            self._tell(f"{exc}; the study goes on with {left} of {len(self._posts)} boards")
            self._give_back(post, job, exc)
            return
        with self._changed:
            lost = [job, *self._jobs]
            self._jobs.clear()
        for one in lost:
            one.future.set_exception(exc)
