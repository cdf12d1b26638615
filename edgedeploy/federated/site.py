"""A site: it takes a request, runs a study of its own beside its data and board, and lets a summary out by one door."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edgedeploy.api import Study
from edgedeploy.errors import BoardError, DataError, EdgeDeployError, LoginRefused, SpecError, StorageError, Unreachable
from edgedeploy.federated.histograms import Histograms
from edgedeploy.federated.leaving import KEPT, Bounds, Door
from edgedeploy.federated.mailbox import Mailbox
from edgedeploy.federated.messages import MOST_REQUEST_BYTES, Answer, Request, read_message
from edgedeploy.federated.observing import observed_by, tensors_by, write_named
from edgedeploy.federated.specs import SiteSpec
from edgedeploy.federated.summary import baseline_said, board_said, cell_said, confirmed_said
from edgedeploy.federated.summing import SiteSums, named_ranges
from edgedeploy.files import disk_told, lock_file
from edgedeploy.records.variant import Scalar
from edgedeploy.report.private import toml_text
from edgedeploy.runtime.files import sha256_file
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec, parse_spec
from edgedeploy.study.events import Observer, ignore
from edgedeploy.study.front import read_front
from edgedeploy.study.options import RunOptions
from edgedeploy.study.store import Store

POLL_S: Final = 1.0
AWAY_S: Final = 600.0
"""How long a coordinator that does not answer is waited for."""

TRANSIENT: Final = (BoardError, StorageError)
"""What says nothing of a candidate: nothing is answered, and the same command goes on."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """A site file that was read, and the way that its messages go. Constructing it touches nothing."""

    spec: SiteSpec
    source: SpecSource
    mailbox: Mailbox
    tell: Tell
    observer: Observer = ignore

    @property
    def base(self) -> Path:
        return self.source.path.resolve().parent

    @property
    def work(self) -> Path:
        return self.base / self.spec.site.work

    @property
    def door(self) -> Door:
        leaves = self.spec.leaves
        bounds = Bounds(
            leaves.most_message, leaves.most_bytes, leaves.share == "per_case", leaves.histograms, leaves.most_sum
        )
        return Door(self.work, bounds)

    @property
    def sums(self) -> SiteSums:
        return SiteSums(self.work / "sums", self.spec.leaves.histograms, self.spec.leaves.least_sites)

    def serve(self, *, once: bool, poll_s: float = POLL_S) -> str:
        """Answer requests until the coordinator ends the release, whose outcome is returned; with ``once`` those that are
        there now (empty where the release goes on).

        Raises ``BoardError`` and ``StorageError`` where nothing could be answered: the same command goes on. Raises
        ``SpecError`` where the site's own bounds keep an answer from leaving.
        """
        with self._alone():
            answered: set[int] = set()
            while True:
                for number in self._there(once, poll_s):
                    if number in answered:
                        continue
                    request, data = self._request(number)
                    if request.kind == "end":
                        self.tell(f"the release {request.release} is {request.outcome}")
                        if number >= max(self._there(once, poll_s), default=number):
                            return request.outcome
                    else:
                        self._answer(request, data)
                    answered.add(number)
                if once:
                    return ""
                time.sleep(poll_s)

    def _there(self, once: bool, poll_s: float) -> tuple[int, ...]:
        """The requests that are there. A coordinator that does not answer is waited for, unless ``once``."""
        give_up_s = time.monotonic() + AWAY_S
        while True:
            try:
                return self.mailbox.open()
            except LoginRefused:
                raise
            except Unreachable:
                if once or time.monotonic() >= give_up_s:
                    raise
            time.sleep(poll_s)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The log counts what left: two processes would count past each other."""
        with disk_told(self.work):
            try:
                self.work.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError, PermissionError) as exc:
                raise self.source.error("site.work", f"{self.work}: {exc.strerror}", "Name a folder") from None
        with lock_file(self.work / ".site.lock") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                asked = f"site {self.spec.site.name}"
                raise SpecError(asked, f"another process serves it in {self.work}", "End that one first") from None
            yield

    def _request(self, number: int) -> tuple[Request, bytes]:
        asked = f"request {number:03d} in {self.mailbox.where}"
        data = self.mailbox.request(number)
        request = read_message(Request, data, asked, MOST_REQUEST_BYTES)
        if (request.site, request.number) != (self.spec.site.name, number):
            found = f"it is request {request.number} for site {request.site}"
            raise DataError(asked, found, f"This is site {self.spec.site.name}: look at where its requests come from")
        return request, data

    def _answer(self, request: Request, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        answer = self._kept(request, sha256) or self._made(request, sha256)
        sent = self.door.passed(answer)
        self.mailbox.answer(request.number, sent)
        self.tell(f"request {request.number:03d} ({request.kind}): {len(sent)} bytes left, {self.door.log} lists them")

    def _kept(self, request: Request, sha256: str) -> Answer | None:
        """What was answered before: a site that is asked twice, or was killed while it sent, says the same."""
        path = self.work / KEPT / f"{request.release}-{request.number:03d}.json"
        if not path.exists():
            return None
        leaves = self.spec.leaves
        most_bytes = leaves.most_message if request.sum is None else leaves.most_sum
        answer = read_message(Answer, path.read_bytes(), f"file {path}", most_bytes)
        return answer if answer.request_sha256 == sha256 else None

    def _made(self, request: Request, sha256: str) -> Answer:
        said: dict[str, Any] = {
            "site": self.spec.site.name,
            "number": request.number,
            "release": request.release,
            "request_sha256": sha256,
        }
        try:
            return Answer(**said, **(self._measured(request) if request.sum is None else self._summed(request)))
        except TRANSIENT:
            raise
        except EdgeDeployError as exc:  # its text may name paths and cases: it stays here
            self.tell(f"request {request.number:03d} cannot be done: {exc}")
            return Answer(**said, kind="failed", failure=type(exc).__name__, exit_code=exc.exit_code)
        except ValidationError as exc:  # more cases or endpoints, or other names, than may leave
            self.tell(f"request {request.number:03d}: what was found may not leave: {exc.errors()[0]['msg']}")
            return Answer(**said, kind="failed", failure="ValidationError", exit_code=SpecError.exit_code)

    def _measured(self, request: Request) -> dict[str, Any]:
        folder = self.work / "releases" / request.release
        confirm = request.kind == "confirm"
        checkpoint = self._checkpoint(request)
        ranges = self._ranges(request, checkpoint)
        spec, source = self._study(request, checkpoint, ranges)
        out = folder / "study"
        options = RunOptions(out=out, resume=Store(out).exists(), confirm=confirm)
        ended = Study(spec, source).run(options, observer=self.observer).reason
        return self._summary(request, out, out_of_time=ended == "wall_clock")

    def _summed(self, request: Request) -> dict[str, Any]:
        """A stage of a secure sum of histograms."""
        assert request.sum is not None

        def observe() -> Histograms:
            return observed_by(*self._study(request, self._checkpoint(request), None))

        said = self.sums.answer(request.sum, request.release, request.checkpoint_sha256, observe)
        return {"kind": "summed", "sum": said}

    def _study(self, request: Request, checkpoint: Path, ranges: Path | None) -> tuple[StudySpec, SpecSource]:
        return parse_spec(
            self._study_text(request, checkpoint, ranges), self.base / f"{self.spec.site.name}-study.toml"
        )

    def _ranges(self, request: Request, checkpoint: Path) -> Path | None:
        """The ranges of all sites by the names of this site's network, where the release has them."""
        if request.ranges_sha256 is None:
            return None
        from edgedeploy.federated.merging import read_site_ranges

        place = self.work / "ranges" / request.ranges_sha256
        given, named = place.with_suffix(".bin"), place.with_suffix(".json")
        self._fetch(request.ranges_sha256, request.ranges_bytes, given)
        names = tensors_by(*self._study(request, checkpoint, None))
        write_named(named, named_ranges(read_site_ranges(given), names, request.checkpoint_sha256))
        return named

    def _checkpoint(self, request: Request) -> Path:
        path = self.work / "checkpoints" / f"{request.checkpoint_sha256}.bin"
        self._fetch(request.checkpoint_sha256, request.checkpoint_bytes, path)
        return path

    def _fetch(self, sha256: str, size_bytes: int, path: Path) -> None:
        if not path.exists() or sha256_file(path) != sha256:
            try:
                self.mailbox.checkpoint(sha256, size_bytes, path)
            except DataError as exc:  # cut on its way, or half carried: nothing of the site is wrong
                raise Unreachable(exc.asked, exc.found, "Run the same command again, once it is there whole") from None

    def _study_text(self, request: Request, checkpoint: Path, ranges: Path | None) -> str:
        """The study of a request: the site's own task, board, margin and limits; the coordinator's weights and candidates.
        The space is that of all candidates from the first request on, so that one folder holds the release."""
        site = self.spec
        targets = list(dict.fromkeys(str(point["target"]) for point in request.candidates))
        key = {"checkpoint_key": request.checkpoint_key} if request.checkpoint_key else {}
        written = site.model_dump(mode="json", exclude_unset=True, by_alias=True)
        study = {
            "study": {
                **{"name": site.site.name, "targets": targets, "seed": site.site.seed},
                **({} if ranges is None else {"ranges": str(ranges)}),
            },
            "task": {**written["task"], "checkpoint": str(checkpoint), **key},
            "boards": written["boards"],
            "space": space_of(request.candidates),
            "objectives": [{"metric": request.metric}, {"metric": site.site.cost}],
            "constraints": written.get("constraints", []),
            "budget": {"trials": len(targets) + request.upto, "wall_clock": f"{site.site.wall_clock:g} s"},
            "measure": written.get("measure", {"queries": site.measure.queries}),
            "evidence": written["evidence"],
            "try": [dict(point) for point in request.candidates[: request.upto]],
        }
        return toml_text({name: value for name, value in study.items() if value != []})

    def _summary(self, request: Request, out: Path, *, out_of_time: bool) -> dict[str, Any]:
        front, metric = read_front(out), request.metric
        measured = {item.digest: item for item in Store(out).measurements() if item.valid}
        reference = measured.get(front.reference or "")
        if reference is None:
            raise DataError("the float baseline", "it has no valid measurement here", "Look at the study's folder")
        per_case = self.spec.leaves.share == "per_case"
        cells = [
            cell_said(number, request.candidates, front, measured, metric, per_case=per_case, out_of_time=out_of_time)
            for number in range(request.upto)
        ]
        picked = front.pick.digest if front.pick else None
        pick = next((cell.candidate for cell in cells if cell.variant is not None and cell.variant == picked), None)
        said: dict[str, Any] = {
            "kind": "confirmed" if request.kind == "confirm" else "measured",
            "board": board_said(reference),
            "baseline": baseline_said(reference, metric, front.metrics[metric].direction == "minimize", per_case),
            "cells": tuple(cells),
            "pick": pick,
        }
        if request.kind == "confirm":
            said["confirmed"] = confirmed_said(front, self._opened_before(request.release), per_case=per_case)
        return said

    def _opened_before(self, release: str) -> int:
        """Earlier releases of this site that looked at the confirmation cases."""
        others = (self.work / "releases").iterdir()
        return sum(bool(Store(path / "study").openings()) for path in others if path.name != release and path.is_dir())


def space_of(candidates: Sequence[Mapping[str, Scalar]]) -> dict[str, list[Scalar]]:
    """The values of each parameter, float32 first; the target is no parameter of a space."""
    space: dict[str, list[Scalar]] = {"precision": ["float32"]}
    for point in candidates:
        for name, value in point.items():
            if name != "target" and value not in space.setdefault(name, []):
                space[name].append(value)
    return space
