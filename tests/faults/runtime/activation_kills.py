"""Kills activations at many points while readers run, prints JSON: ``python activation_kills.py FOLDER KILLS
ROLLBACKS``.

FOLDER holds ``trust.pub`` and the signed bundles ``release-1`` to ``release-KILLS+1``. Each release is activated by a
process that gets SIGKILL right before one of its changes to the disk (a file opened for writing, a sync, a rename, a
link, a removal): the first kill comes before the first change, the last one before the last, the others lie evenly
between them. After each kill the current release has to load and be the old or the new one; then the activation is done
again, undisturbed. Roll-backs are killed in the same way. Meanwhile two readers load ``current`` without a pause: they
may see no error, and no release older than one that they have seen (while nothing is rolled back).
"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy  # noqa: F401  (imported before the forks)
import onnxruntime  # noqa: F401

from edgedeploy.runtime.bundle.activate import activate, roll_back
from edgedeploy.runtime.bundle.load import load

CHANGES: Final = ("fsync", "mkdir", "rename", "replace", "symlink", "unlink", "rmdir")
READERS: Final = 2


def forked(work: Callable[[], None]) -> int:
    """A child that does ``work``; its process id. It ends without running anything of this process's."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> int:
    """The exit status; below 0, the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counted(before: Callable[[str], None]) -> None:
    """From now on, ``before`` is called right before each change that this process makes to the disk."""

    def wrap(module: Any, name: str, changes: Callable[..., bool]) -> None:
        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            if changes(*args, **options):
                before(name)
            return real(*args, **options)

        setattr(module, name, call)

    for name in CHANGES:
        wrap(os, name, lambda *args, **options: True)
    wrap(io, "open", lambda path, mode="r", *args, **options: bool(set(mode) & set("wax+")))


def changes_of(work: Callable[[], object]) -> int:
    """How many changes an undisturbed ``work`` makes."""
    receive, send = os.pipe()

    def count() -> None:
        calls = itertools.count()
        counted(lambda name: next(calls) and None)
        work()
        os.write(send, str(next(calls)).encode())

    child = forked(count)
    os.close(send)
    with os.fdopen(receive, "rb") as stream:
        found = stream.read()
    assert ended(child) == 0, "an undisturbed run failed"
    return int(found)


def killed_at(point: int, work: Callable[[], object]) -> None:
    """``work`` in a process that dies before its change number ``point``, from 0."""

    def run() -> None:
        calls = itertools.count()

        def before(name: str) -> None:
            if next(calls) == point:
                os.kill(os.getpid(), signal.SIGKILL)

        counted(before)
        work()

    status = ended(forked(run))
    assert status == -signal.SIGKILL, f"the kill at change {point} did not come: status {status}"


def spread(count: int, total: int) -> list[int]:
    """``count`` numbers from 0 to ``total`` - 1, first and last among them."""
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


class Reader:
    """A process that loads ``current`` without a pause and notes each release; whatever it is refused ends it."""

    def __init__(self, root: Path, trust: Path, log: Path, stop: Path) -> None:
        self.log = log
        self.child = forked(lambda: self._read(root, trust, stop))

    def _read(self, root: Path, trust: Path, stop: Path) -> None:
        with self.log.open("w") as notes:
            while not stop.exists():
                notes.write(f"{load(root / 'current', trust=trust).release}\n")

    def end(self) -> list[int]:
        assert ended(self.child) == 0, "a reader was refused"
        return [int(line) for line in self.log.read_text().split()]


@contextmanager
def readers(folder: Path, root: Path, trust: Path, found: list[list[int]]) -> Iterator[None]:
    stop = folder / f"stop-{len(found)}"
    running = [Reader(root, trust, folder / f"reader-{len(found)}-{number}", stop) for number in range(READERS)]
    try:
        yield
    finally:
        stop.touch()
        found += [reader.end() for reader in running]


def main() -> int:
    folder, kills, roll_backs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    root, trust = folder / "root", folder / "trust.pub"

    def release(number: int) -> Callable[[], object]:
        return lambda: activate(folder / f"release-{number}", trust=trust, root=root)

    def current() -> int:
        return load(root / "current", trust=trust).release

    def undisturbed(work: Callable[[], object], expected: int) -> None:
        assert ended(forked(lambda: work() and None)) == 0, "an activation failed after a kill"
        assert current() == expected
        left = [path.name for path in root.rglob(".part-*")]
        assert not left, f"left after a whole activation: {left}"

    ended(forked(lambda: release(1)() and None))
    undisturbed(release(2), 2)
    total = changes_of(release(3))
    old_or_new = {"old": 0, "new": 0}
    seen: list[list[int]] = []
    with readers(folder, root, trust, seen):
        for number, point in enumerate(spread(kills, total), start=4):
            killed_at(point, release(number))
            found = current()
            assert found in (number - 1, number), f"release {found} after a kill at change {point} of {number}"
            old_or_new["new" if found == number else "old"] += 1
            undisturbed(release(number), number)
    assert all(reader == sorted(reader) for reader in seen), "a reader saw an older release after a newer one"
    last = kills + 3
    back = lambda: roll_back(trust=trust, root=root)  # noqa: E731
    total_back = changes_of(back)
    assert current() == last - 1
    backwards: list[list[int]] = []
    undisturbed(release(last), last)
    with readers(folder, root, trust, backwards):
        for point in spread(roll_backs, total_back):
            killed_at(point, back)
            found = current()
            assert found in (last - 1, last)
            if found == last:
                undisturbed(back, last - 1)
            undisturbed(release(last), last)
    assert {release for reader in backwards for release in reader} <= {last - 1, last}
    result = {
        "changes": total,
        "kills": kills,
        "roll_back_changes": total_back,
        "roll_back_kills": roll_backs,
        "old": old_or_new["old"],
        "new": old_or_new["new"],
        "readings": sum(map(len, seen + backwards)),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
