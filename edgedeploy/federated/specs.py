"""SITE.toml and SITES.toml: what a site has and lets out, and what a coordinator releases to which sites."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from edgedeploy.errors import SpecError, nearest
from edgedeploy.federated.messages import ASKABLE, MOST_CANDIDATES, NAME, MetricName, SiteName
from edgedeploy.records.units import parse_quantity
from edgedeploy.records.variant import PRECISIONS, Scalar
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.evidence import EvidenceTable
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.spec.objectives import ConstraintTable
from edgedeploy.spec.scenarios import Seconds, Table
from edgedeploy.spec.source import SpecSource, first_error
from edgedeploy.spec.study import WHOLE_NUMBERS
from edgedeploy.spec.task import TaskTable
from edgedeploy.spec.toml import read_file, read_toml

SITE_FILE: Final = "site file"
SITES_FILE: Final = "sites file"

PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:-]{1,253}$")]
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class SiteTable(Table):
    """Who the site is, and how it hears of requests: of a folder, or of the coordinator, to which it connects outward."""

    name: SiteName
    """The site's name, as the coordinator's file has it."""
    work: PathText = "site"
    """Folder for checkpoints, studies and the log of what left, relative to this file."""
    spool: PathText | None = None
    """Folder that requests and answers are carried in; the coordinator's side has the same files."""
    coordinator: Url | None = None
    """https://HOST:PORT of `edgedeploy federate`; http on the loopback address alone."""
    token_file: PathText | None = None
    """With `coordinator`: file with the token that both sides have."""
    authority: PathText | None = None
    """With https: file with the certificate (PEM) that the coordinator's is checked against; the system's when left out."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Decides every random choice of the site's studies."""
    cost: MetricName = "size_bytes"
    """What a candidate has to save against the float baseline: a metric of the board."""
    wall_clock: Seconds = Field(default=24 * 3600.0, gt=0)
    """Time for one request."""

    @model_validator(mode="after")
    def _one_way(self) -> SiteTable:
        if (self.spool is None) == (self.coordinator is None):
            raise ValueError("exactly one of `spool` and `coordinator` must be given")
        if (self.coordinator is None) != (self.token_file is None):
            raise ValueError("`token_file` goes with `coordinator`, and only with it")
        return self


class LeavesTable(Table):
    """What may leave the site."""

    share: Literal["sums", "per_case"] = "sums"
    """"sums": means, bounds, counts and the worst case alone. "per_case": also the metric of each case, without its id."""
    most_message: int = Field(default=16 << 10, ge=1024, le=16 << 20)
    """Bytes of one answer, at most."""
    most_bytes: int = Field(default=1 << 20, ge=1024, le=1 << 30)
    """Bytes that may ever leave, by the log. Beyond it nothing does, until somebody raises it here."""
    histograms: bool = False
    """Whether counts of activations may leave, under masks that cancel in the sum over all sites. Two sums of one network
    leave some 1 MB for 50 tensors, which `most_bytes` counts."""
    least_sites: int = Field(default=3, ge=2, le=256)
    """The fewest sites of a sum that this one takes part in: of a sum of two, the other one knows this one's part."""
    most_sum: int = Field(default=4 << 20, ge=1024, le=8 << 20)
    """Bytes of one part of such a sum, at most."""


class SiteSpec(Table):
    """A site file: the site's own data, board and margin. Nothing in it comes from the coordinator."""

    site: SiteTable
    """Who the site is and how it hears of requests."""
    task: TaskTable
    """The site's own data and metrics, as in a study file; the checkpoint is the coordinator's."""
    boards: tuple[BoardTable, ...] = Field(min_length=1, max_length=1)
    """The site's board."""
    evidence: EvidenceTable
    """What the site wants shown before anything is shipped to it: `margin` at least."""
    measure: MeasureTable = MeasureTable(queries=700)
    """How the board is timed; a 99th percentile needs 662 queries."""
    constraints: tuple[ConstraintTable, ...] = ()
    """Limits that the site's board has, as in a study file."""
    leaves: LeavesTable = LeavesTable()
    """What may leave the site."""

    @model_validator(mode="before")
    @classmethod
    def _one_board(cls, spec: Any) -> Any:
        if isinstance(spec, dict) and "board" in spec and "boards" not in spec:
            return {**{key: value for key, value in spec.items() if key != "board"}, "boards": [spec["board"]]}
        return spec

    @model_validator(mode="after")
    def _states_a_margin(self) -> SiteSpec:
        if self.evidence.margin is None:
            raise ValueError("[evidence] margin must say what may be lost here: nothing is shown without it")
        if not re.fullmatch(NAME, self.boards[0].name):
            raise ValueError("[board] name leaves the site: letters, digits, blanks and ._- alone, 80 at most")
        if self.task.checkpoint is not None or self.task.kind == "onnx":
            raise ValueError("the checkpoint comes with the request: [task] describes a network that is built in torch")
        return self


class FederateTable(Table):
    """What is released."""

    name: SiteName
    """Name of the release."""
    checkpoint: PathText
    """File with the trained weights, the same for every site: of torch, safetensors, Flower or NVFLARE."""
    checkpoint_key: str = Field(default="", max_length=200)
    """Where in the file they are, if it has to be told."""
    like: PathText | None = None
    """With a checkpoint of arrays without names (Flower's lists): any file of weights of the same network, for its names."""
    metric: MetricName
    """The metric of the sites' tasks that decides."""
    out: PathText = "federate"
    """Folder for requests, answers and the release, relative to this file."""
    listen: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.\[\]:-]{1,253}:[0-9]{1,5}$")] | None = None
    """HOST:PORT that sites connect to. Sites with a `spool` need none."""
    certificate: PathText | None = None
    """File with certificate and key (PEM) for https; without it `listen` is a loopback address."""
    ranges: Literal["own", "sites"] = "own"
    """"own": each site calibrates by its own images. "sites": by the ranges over the images of all sites, from a secure sum
    of their histograms (`edgedeploy[federated]`); candidates are int8 of onnxruntime then."""
    wait: Seconds = Field(default=7 * 24 * 3600.0, ge=0)
    """How long answers are waited for; the same command goes on afterwards."""


class SiteEntry(Table):
    """One site that the release is for."""

    name: SiteName
    """The site's name, as its own file has it."""
    margin: Margin | str
    """The most that the metric may lose there; the site's own margin may be smaller."""
    spool: PathText | None = None
    """Folder that is carried to the site and back; a folder in `out` when left out."""
    token_file: PathText | None = None
    """File with the token of a site that connects to `listen`."""


class SitesSpec(Table):
    """A coordinator's file. Candidates stand in the order of preference."""

    federate: FederateTable
    """What is released."""
    candidate: tuple[dict[str, Scalar], ...] = Field(min_length=1, max_length=MOST_CANDIDATES)
    """How the checkpoint may be built, best first: the next one is tried where one is not shown."""
    site: tuple[SiteEntry, ...] = Field(min_length=1, max_length=256)
    """The sites. A release needs all of them."""

    @model_validator(mode="after")
    def _checks(self) -> SitesSpec:
        names = [item.name.lower() for item in self.site]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"site {double[0]!r} stands twice")
        for number, point in enumerate(self.candidate, 1):
            _check_point(number, point)
            if set(point) != set(self.candidate[0]):
                raise ValueError(
                    f"candidate {number}: all candidates name the same parameters, or a study fills them in"
                )
            if any(point == other for other in self.candidate[: number - 1]):
                raise ValueError(f"candidate {number} stands twice")
        self._check_ways()
        if self.federate.ranges == "sites":
            _check_summed(self)
        for item in self.site:
            if item.token_file is not None and self.federate.listen is None:
                raise ValueError(f"site {item.name!r} has a token, and [federate] listen is missing")
        return self

    def _check_ways(self) -> None:
        """Raises ``ValueError`` where two sites share a folder, or a token."""
        for key in ("spool", "token_file"):
            named = [(item.name, os.path.normpath(value)) for item in self.site if (value := getattr(item, key))]
            for place, (name, path) in enumerate(named):
                other = next((earlier for earlier, taken in named[:place] if taken == path), None)
                if other is not None:
                    raise ValueError(f"sites {other!r} and {name!r} have one {key}: each could answer for the other")


def _check_point(number: int, point: dict[str, Scalar]) -> None:
    odd = sorted(set(point) - {*ASKABLE})
    if odd:
        raise ValueError(f"candidate {number}: expected {', '.join(ASKABLE)}, but got {odd[0]!r}")
    if not all(isinstance(point.get(name), str) for name in ("target", "precision")):
        raise ValueError(f"candidate {number}: it names a target and a precision, as texts")
    for name, value in point.items():
        if isinstance(value, str) and not re.fullmatch(NAME, value):
            raise ValueError(f"candidate {number}: {name} {value!r}: letters, digits, blanks and ._- alone, 80 at most")
    if point["precision"] not in PRECISIONS:
        remedy = nearest(str(point["precision"]), PRECISIONS)
        raise ValueError(f"candidate {number}: precision {point['precision']!r}. {remedy}")
    whole = [item for item in WHOLE_NUMBERS if item[0] in point] + [("weight_bits", 7, 8)] * ("weight_bits" in point)
    for name, least, most in whole:
        number_of = point[name]
        if not isinstance(number_of, int) or isinstance(number_of, bool) or not least <= number_of <= most:
            raise ValueError(f"candidate {number}: {name} is a whole number from {least} to {most}, not {number_of!r}")
    if point["precision"] == "float32":
        raise ValueError(f"candidate {number}: float32 is the baseline, which every site measures anyway")


def _check_summed(spec: SitesSpec) -> None:
    if len(spec.site) < 3:
        raise ValueError("ranges = 'sites' needs 3 sites: of a sum of two, each knows the other's part")
    for number, point in enumerate(spec.candidate, 1):
        if (point["target"], point["precision"]) != ("onnxruntime", "int8"):
            raise ValueError(f"candidate {number}: ranges = 'sites' are for int8 of onnxruntime")
        own = sorted({"calibration", "calibration_cases", "quantizer"} & set(point))
        if own:
            raise ValueError(f"candidate {number}: ranges = 'sites' replace {own[0]}")


def margin_of(entry: SiteEntry, unit: str) -> float:
    """In the metric's base unit. Raises ``SpecError`` for a text of another unit."""
    if not isinstance(entry.margin, str):
        return entry.margin
    try:
        found = parse_quantity(entry.margin, unit)
    except ValueError as exc:
        raise SpecError(f"site {entry.name}: margin", str(exc), "Write it in the metric's own unit") from None
    if found < 0:
        raise SpecError(f"site {entry.name}: margin", f"{found:g}", "A margin is what may be lost: 0 or more")
    return found


def load_site(path: Path) -> tuple[SiteSpec, SpecSource]:
    """Raises ``SpecError``."""
    source, data = _read(path, SITE_FILE)
    try:
        return SiteSpec.model_validate(data), source
    except ValidationError as exc:
        raise first_error(exc, source, SiteSpec) from None


def load_sites(path: Path) -> tuple[SitesSpec, SpecSource]:
    """Raises ``SpecError``."""
    source, data = _read(path, SITES_FILE)
    try:
        return SitesSpec.model_validate(data), source
    except ValidationError as exc:
        raise first_error(exc, source, SitesSpec) from None


def _read(path: Path, kind: str) -> tuple[SpecSource, dict[str, Any]]:
    source = SpecSource(path, read_file(path, kind), kind)
    return source, read_toml(source)
