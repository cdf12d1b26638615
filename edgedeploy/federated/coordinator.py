"""The coordinator: it asks every site, reads what comes back, and goes on from its own files after any interruption."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, SpecError
from edgedeploy.federated.checkpoints import plain_weights
from edgedeploy.federated.mailbox import FROM_SITE, MOST_CHECKPOINT_BYTES, Spool
from edgedeploy.federated.messages import MOST_CASES, MOST_REQUEST_BYTES, Answer, Request, plain, read_message
from edgedeploy.federated.release import Release, SiteState, decide, next_step
from edgedeploy.federated.specs import SiteEntry, SitesSpec, margin_of
from edgedeploy.federated.sum_messages import SumAsked, SumSaid
from edgedeploy.federated.summing import require_flower
from edgedeploy.files import append_line, disk_told, parsed, read_plain, write_atomic, write_json
from edgedeploy.records.variant import digest_of
from edgedeploy.runtime.files import sha256_file
from edgedeploy.spec.source import SpecSource
from edgedeploy.study.store import utc_now

POLL_S: Final = 1.0
RANGES: Final = "ranges.json"
TAKEN_IN: Final = "checkpoint.safetensors"
MARKER: Final = "federate.json"
RECEIVED: Final = "received.jsonl"
MOST_ANSWER_BYTES: Final = (64 << 10) + 24 * MOST_CASES * 17
Tell = Callable[[str], None]
Told = Callable[[], bool]
Serving = Callable[[Mapping[str, Spool]], AbstractContextManager[Told]]
"""Opens the spools to sites that connect, for as long as it is held; what it gives says whether all of them have fetched
what is there for them."""

LINGER_S: Final = 30.0
"""How long sites that connect are waited for to fetch the end."""


def nobody_connects(_: Mapping[str, Spool]) -> AbstractContextManager[Told]:
    return nullcontext(lambda: True)


@dataclass(frozen=True)
class Coordinator:
    """A sites file that was read. ``out`` is its folder; constructing it touches nothing."""

    spec: SitesSpec
    source: SpecSource
    out: Path
    tell: Tell

    @property
    def base(self) -> Path:
        return self.source.path.resolve().parent

    @property
    def given(self) -> Path:
        """The checkpoint as the file names it."""
        return self.base / self.spec.federate.checkpoint

    @property
    def checkpoint(self) -> Path:
        """What sites get: the checkpoint itself, or what was taken in of it."""
        return self.given if self.converted is None else self.out / TAKEN_IN

    @cached_property
    def converted(self) -> bytes | None:
        """Weights of Flower or NVFLARE by name, as safetensors; None for a file that sites read as it is."""
        like = self.spec.federate.like
        return plain_weights(self.given, None if like is None else self.base / like)

    @cached_property
    def checkpoint_sha256(self) -> str:
        """Raises ``SpecError`` where there is no such file, ``DataError`` for one that is too large."""
        path = self.given
        if not path.is_file():
            raise self.source.error("federate.checkpoint", f"no file at {path}", "Paths are relative to the sites file")
        if path.stat().st_size > MOST_CHECKPOINT_BYTES:
            raise DataError(f"checkpoint {path}", f"{path.stat().st_size} bytes are too many", "Save the weights alone")
        return sha256_file(path) if self.converted is None else hashlib.sha256(self.converted).hexdigest()

    @cached_property
    def candidates(self) -> tuple[dict[str, Any], ...]:
        return tuple(plain(dict(point)) for point in self.spec.candidate)

    @cached_property
    def release(self) -> str:
        """Names checkpoint, metric, candidates, sites and margins: another of these is another release, so that no site that
        fails is left out of one that was refused."""
        asked = {
            "name": self.spec.federate.name,
            "checkpoint": self.checkpoint_sha256,
            "key": self.spec.federate.checkpoint_key,
            "metric": self.spec.federate.metric,
            "candidates": list(self.candidates),
            "sites": {entry.name: margin_of(entry, "1") for entry in self.spec.site},
        }
        if self.spec.federate.ranges != "own":
            asked["ranges"] = self.spec.federate.ranges
        return digest_of(asked)[:16]

    @property
    def ranges(self) -> Path | None:
        """The file of the ranges of all sites; None where each calibrates by itself."""
        return self.out / RANGES if self.spec.federate.ranges == "sites" else None

    def spool(self, entry: SiteEntry) -> Spool:
        return Spool(self.base / entry.spool if entry.spool is not None else self.out / "spool" / entry.name)

    def run(self, *, resume: bool, once: bool, serving: Serving = nobody_connects, poll_s: float = POLL_S) -> Release:
        """Ask, wait and decide. With ``once``, or when the time to wait is over, the release may be ``undecided``: the same
        command with ``resume`` goes on. Raises ``SpecError``, ``DataError``, ``StorageError``."""
        if self.ranges is not None and once and not self.ranges.exists():
            found = "a sum has eight messages to and fro, and its secrets are in the running coordinator alone"
            raise SpecError("--once", found, "Leave it out until the sum is there: then --resume --once goes on")
        if self.ranges is not None:
            require_flower()
        self._begin(resume)
        give_up_s = time.monotonic() + self.spec.federate.wait
        again = resume
        with serving({entry.name: self.spool(entry) for entry in self.spec.site}) as told:
            if self.ranges is not None and not self.ranges.exists():
                self._merge(self.ranges, poll_s)
            while True:
                waiting = set(self.waiting_for())  # before the answers are read: one may come between
                states, asked = self._advance(again, waiting)
                again = False
                release = decide(states, len(self.candidates))
                if release.outcome != "undecided":
                    self._end(states, release)
                    linger_s = time.monotonic() + LINGER_S
                    while not told() and time.monotonic() < linger_s:
                        time.sleep(poll_s)
                    return release
                over = once or time.monotonic() >= give_up_s or not waiting
                if not asked and over:
                    return release
                if not asked:
                    time.sleep(poll_s)

    def states(self) -> list[SiteState]:
        """What all sites have answered. Raises ``DataError`` for an answer that is none, or another request's."""
        return [self._state(entry) for entry in self.spec.site]

    def waiting_for(self) -> list[str]:
        """Sites with a request that is not answered yet."""
        return [entry.name for entry in self.spec.site if self._open(self.spool(entry))]

    # -- steps

    def _begin(self, resume: bool) -> None:
        said = {"format": "edgedeploy-federate", "version": 1, "release": self.release, "name": self.spec.federate.name}
        path = self.out / MARKER
        try:
            found = parsed(read_plain(path, 1 << 16))
        except FileNotFoundError:
            if self.out.exists() and any(self.out.iterdir()):
                raise SpecError(f"--out {self.out}", "it exists and holds no release", "Choose another one") from None
            with disk_told(path):
                self.out.mkdir(parents=True, exist_ok=True)
            write_json(path, said)
            found = said
        except (OSError, ValueError, RecursionError) as exc:
            raise SpecError(f"--out {self.out}", f"its {MARKER} cannot be read ({exc})", "Choose another one") from None
        if not isinstance(found, dict) or found.get("release") != self.release:
            remedy = "Choose another --out: another checkpoint, metric, candidate, site or margin is another release"
            raise SpecError(f"--out {self.out}", "it holds another release", remedy)
        if not resume and found is not said:
            raise SpecError(f"--out {self.out}", "it holds this release already", "Add --resume, or choose another one")
        if self.converted is not None:
            write_atomic(self.checkpoint, self.converted)

    def _advance(self, again: bool, waiting: Collection[str]) -> tuple[list[SiteState], bool]:
        """Take in what came, and ask what follows of it; whether anything was asked. ``again``: sites that could not do what
        they were asked are asked once more. Sites in ``waiting`` have a request still."""
        states = self.states()
        ready = all(state.chosen is not None and state.failed is None for state in states)
        asked = False
        for entry, state in zip(self.spec.site, states, strict=True):
            spool = self.spool(entry)
            if entry.name in waiting:
                continue
            step = next_step(state, len(self.candidates))
            if state.failed is not None and again:
                last = max(self._requests(spool).values(), key=lambda item: item.number)
                step = ("confirm" if last.kind == "confirm" else "measure", last.upto)
            elif step is None and ready and state.confirmed is None:
                step = ("confirm", state.tried)
            if step is not None:
                self._ask(entry, *step)
                asked = True
        return states, asked

    def _merge(self, to: Path, poll_s: float) -> None:
        """Raises ``NoAggregate`` where the sites' histograms have no sum."""
        from edgedeploy.federated.merging import SpoolGrid, merge

        entries = dict(enumerate(self.spec.site, start=1))

        def ask(node: int, question: SumAsked) -> int:
            return self._ask(entries[node], "sum", 1, said=question)

        def reply(node: int, number: int) -> SumSaid | str | None:
            spool = self.spool(entries[node])
            if number not in spool.answered():
                return None
            answer = self._read(entries[node], spool, number)
            return answer.sum if answer.sum is not None else answer.failure

        names = {node: entry.name for node, entry in entries.items()}
        found = merge(SpoolGrid(names, ask, reply, poll_s), names, self.spec.federate.wait)
        found.write(to)
        self.tell(f"ranges of {len(found.ranges)} tensors over {found.cases} cases of {found.sites} sites")

    def _ask(self, entry: SiteEntry, step: str, upto: int, outcome: str = "", said: SumAsked | None = None) -> int:
        spool, path = self.spool(entry), self.checkpoint
        ranges: dict[str, Any] = {}
        if self.ranges is not None and self.ranges.exists():
            ranges = {"ranges_sha256": sha256_file(self.ranges), "ranges_bytes": self.ranges.stat().st_size}
            spool.put_checkpoint(self.ranges, ranges["ranges_sha256"])
        number = max(spool.numbers(), default=0) + 1
        request = Request(
            site=entry.name,
            number=number,
            kind=step,  # type: ignore[arg-type]
            release=self.release,
            metric=self.spec.federate.metric,
            candidates=self.candidates,
            upto=upto,
            checkpoint_sha256=self.checkpoint_sha256,
            checkpoint_bytes=path.stat().st_size,
            checkpoint_key=self.spec.federate.checkpoint_key if self.converted is None else "",
            outcome=outcome,  # type: ignore[arg-type]
            sum=said,
            **ranges,
        )
        try:
            spool.put_checkpoint(path, self.checkpoint_sha256)
            spool.ask(number, request.as_bytes())
        except (NotADirectoryError, PermissionError) as exc:
            found = f"{spool.folder}: {exc.strerror}"
            raise SpecError(f"site {entry.name}: spool", found, "Name a folder that can be written to") from None
        if step not in ("end", "sum"):
            self.tell(f"{entry.name}: request {number:03d}, {step} candidate {upto} of {len(self.candidates)}")
        return number

    def _end(self, states: list[SiteState], release: Release) -> None:
        """Tell every site how it ended, once."""
        for entry, state in zip(self.spec.site, states, strict=True):
            if not any(request.kind == "end" for request in self._requests(self.spool(entry)).values()):
                self._ask(entry, "end", max(1, state.tried), release.outcome)

    # -- reading

    def _requests(self, spool: Spool) -> dict[int, Request]:
        """Those of this release but stages of sums: a spool may have served others before."""
        found = {}
        for number in spool.numbers():
            asked = f"request {number:03d} in {spool.where}"
            request = read_message(Request, spool.request(number), asked, MOST_REQUEST_BYTES)
            if request.release == self.release and request.sum is None:
                found[number] = request
        return found

    def _open(self, spool: Spool) -> bool:
        """Whether the site has a request that it has not answered."""
        asked = {number for number, request in self._requests(spool).items() if request.kind != "end"}
        return bool(asked - set(spool.answered()))

    def _state(self, entry: SiteEntry) -> SiteState:
        spool = self.spool(entry)
        asked = {number for number, request in self._requests(spool).items() if request.kind != "end"}
        answers = tuple(self._read(entry, spool, number) for number in spool.answered() if number in asked)
        return SiteState(entry.name, self.spec.federate.metric, margin_of(entry, "1"), answers)

    def _read(self, entry: SiteEntry, spool: Spool, number: int) -> Answer:
        data = spool.answer_bytes(number, MOST_ANSWER_BYTES)
        answer = self.checked(entry, number, data)
        self._log(entry.name, number, data)
        return answer

    def checked(self, entry: SiteEntry, number: int, data: bytes) -> Answer:
        """The answer of a site to its request ``number``. Raises ``DataError`` for bytes that are none."""
        asked, spool = f"answer {number:03d} of site {entry.name}", self.spool(entry)
        answer = read_message(Answer, data, asked, MOST_ANSWER_BYTES)
        request = spool.request(number)
        right = (entry.name, number, self.release, hashlib.sha256(request).hexdigest())
        if (answer.site, answer.number, answer.release, answer.request_sha256) != right:
            found = "it answers another request"
            raise DataError(
                asked, found, f"Remove {spool.folder / FROM_SITE / f'{number:03d}.json'}: the site sends it again"
            )
        self._fits(answer, read_message(Request, request, asked, MOST_REQUEST_BYTES), asked)
        return answer

    def _fits(self, answer: Answer, request: Request, asked: str) -> None:
        """Raises ``DataError`` for an answer that is none to what was asked."""
        if answer.kind == "failed" and request.kind != "end":
            return
        if request.sum is not None:
            if answer.sum is None or answer.sum.stage != request.sum.stage:
                found = f"it is no answer to the stage {request.sum.stage}"
                raise DataError(asked, found, "Both ends must be of one release")
            return
        kind = {"measure": "measured", "confirm": "confirmed"}.get(request.kind)
        cells = [cell.candidate for cell in answer.cells]
        if (
            answer.kind != kind
            or (answer.confirmed is None) == (kind == "confirmed")
            or cells != [*range(request.upto)]
        ):
            found = f"it says {answer.kind} of candidates {cells}, and {request.kind} up to {request.upto} was asked"
            raise DataError(asked, found, "Both ends must be of one release")

    def _log(self, site: str, number: int, data: bytes) -> None:
        """What came in, once each, so that it can be held against the site's own log of what left."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.out / RECEIVED
        if path.exists() and sha256 in path.read_text(encoding="utf-8"):
            return
        line = {"utc": utc_now(), "site": site, "number": number, "bytes": len(data), "sha256": sha256}
        append_line(path, json.dumps(line, sort_keys=True).encode())
