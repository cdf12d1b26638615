"""What a coordinator says to a site, and the one kind of answer that leaves a site: every field with its kind and its bound.

This is the allow-list. A field that is not here cannot leave, a text is a name or a hash of few characters, a number is
finite and rounded, and the only lists are those of candidates, endpoints and, where a site shares them, its cases.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edgedeploy.errors import DataError
from edgedeploy.evidence.confirmation import Outcome
from edgedeploy.federated.sum_messages import SumAsked, SumSaid
from edgedeploy.files import parsed
from edgedeploy.records.board import Provenance
from edgedeploy.records.metrics import Clock
from edgedeploy.records.variant import canonical_json

SCHEMA: Final = 1
MOST_CANDIDATES: Final = 16
MOST_ENDPOINTS: Final = 8
MOST_CASES: Final = 20_000
MOST_REQUESTS: Final = 999
MOST_REQUEST_BYTES: Final = 64 << 10
SIGNIFICANT_DIGITS: Final = 6
"""Of numbers that leave: enough to judge, and no place to hide more in."""

ASKABLE: Final = ("target", "precision", "weight_bits", "calibration", "calibration_cases", "quantizer", "threads")
"""What a candidate may say: how the one checkpoint is built and run. A coordinator starts no training at a site."""

NAME: Final = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}"
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
SiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
MetricName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,80}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{0,40}$")]
Flag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,20}$")]
LARGEST: Final = 1e15
"""Of a metric: means over sites of larger ones would leave the range of floats."""
Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Bytes = Annotated[int, Field(ge=0, le=1 << 40)]
Value = bool | int | Number | Name
Point = dict[MetricName, Value]

Word = Literal["non-inferior", "inferior", "not shown", "no verdict", "failed"]
NoTime = Literal["", "an instruction emulator has no time", "fewer than 662 queries"]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def as_bytes(self) -> bytes:
        """The one text of the message: sorted keys, no white space, one line."""
        return canonical_json(self.model_dump(mode="json")).encode() + b"\n"


Said = TypeVar("Said", bound=Message)


class Request(Message):
    """What a coordinator asks of a site. It holds data only: names of parameters and hashes, no code and no path.

    ``release`` names checkpoint, metric and all candidates together; a site measures the first ``upto`` of them.
    ``kind``: ``measure`` them, ``confirm`` the site's own pick on cases that nobody has looked at, ``sum`` (a stage of a
    secure sum of histograms, ``sum``), or ``end`` with the outcome of it all. ``ranges_sha256`` names the file of ranges of
    all sites, where candidates are built with them.
    """

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    site: SiteName
    number: int = Field(ge=1, le=MOST_REQUESTS)
    kind: Literal["measure", "confirm", "sum", "end"]
    release: Digest
    metric: MetricName
    candidates: tuple[Point, ...] = Field(min_length=1, max_length=MOST_CANDIDATES)
    upto: int = Field(ge=1, le=MOST_CANDIDATES)
    checkpoint_sha256: Sha256
    checkpoint_bytes: Bytes
    checkpoint_key: str = Field(default="", max_length=200)
    outcome: Literal["", "released", "refused"] = ""
    ranges_sha256: Sha256 | None = None
    ranges_bytes: Bytes = 0
    sum: SumAsked | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _askable(self) -> Request:
        odd = sorted({name for point in self.candidates for name in point} - {*ASKABLE})
        if odd:
            raise ValueError(f"a candidate says how a checkpoint is built and run ({', '.join(ASKABLE)}), not {odd[0]}")
        if self.upto > len(self.candidates):
            raise ValueError(f"{self.upto} of {len(self.candidates)} candidates")
        for place, point in enumerate(self.candidates, 1):
            if not all(isinstance(point.get(name), str) for name in ("target", "precision")):
                raise ValueError(f"candidate {place} names no target, or no precision")
            if point in self.candidates[: place - 1]:
                raise ValueError(f"candidate {place} stands twice")
        if (self.kind == "sum") != (self.sum is not None):
            raise ValueError("a stage of a sum goes with kind = sum, and only with it")
        return self


class EndpointSaid(Message):
    """One metric's average against the site's float baseline: ``gain`` (negative is a loss) with its one-sided bounds."""

    metric: MetricName
    gain: Number
    lower: Number | None
    upper: Number | None
    margin: Annotated[Number, Field(ge=0)]

    @property
    def within(self) -> bool:
        """Whether no more than the margin is lost; a bound that is better than the average itself is none."""
        return self.lower is not None and -self.margin <= self.lower and -self.margin <= self.gain


class CellSaid(Message):
    """One candidate at one site on its board.

    ``accuracy`` and ``worst`` are the mean and the worst case of the metric, ``worst_loss`` the largest loss of a case
    against the float baseline, ``lost`` how many cases lose more than may be; ``p99_ns`` is None with the
    reason, and ``p99_beside_ns`` is the float baseline's in the same run.
    ``failure`` is the class of the error where there is no number. ``per_case`` are the metric's values in the order of
    the site's cases, without ids, where the site shares them.
    """

    candidate: int = Field(ge=0, lt=MOST_CANDIDATES)
    word: Word
    variant: Digest | None = None
    artifact: Digest | None = None
    size_bytes: Bytes | None = None
    weight_bits: Literal[7, 8] | None = None
    cases: Count = 0
    accuracy: Number | None = None
    worst: Number | None = None
    worst_loss: Number | None = None
    lost: Count | None = None
    lost_shown: bool | None = None
    endpoints: tuple[EndpointSaid, ...] = Field(default=(), max_length=MOST_ENDPOINTS)
    p99_ns: int | None = Field(default=None, gt=0, lt=1 << 60)
    p99_beside_ns: int | None = Field(default=None, gt=0, lt=1 << 60)
    no_p99: NoTime = ""
    cases_wanted: Count | None = None
    failure: Kind = ""
    per_case: tuple[Number | None, ...] = Field(default=(), max_length=MOST_CASES)

    @property
    def shown(self) -> bool:
        """Every bound is within its margin, told by the numbers and not by the word."""
        bounded = bool(self.endpoints) and all(item.within for item in self.endpoints)
        return self.word == "non-inferior" and self.cases > 0 and bounded and self.lost_shown is not False


class BaselineSaid(Message):
    """The site's float baseline on its board."""

    artifact: Digest
    size_bytes: Bytes
    cases: Count
    accuracy: Number | None
    worst: Number | None
    per_case: tuple[Number | None, ...] = Field(default=(), max_length=MOST_CASES)


class BoardSaid(Message):
    """What decides which kernels ran, and what the numbers are worth; no host, user, serial number or identity."""

    name: Name
    provenance: Provenance
    clock: Clock
    arch: Flag
    isa: tuple[Flag, ...] = Field(max_length=64)


class ConfirmedSaid(Message):
    """The pick alone on the site's confirmation cases. ``opened_before`` counts earlier releases at this site whose
    confirmation looked at the same cases: they are not as fresh then as they should be."""

    outcome: Outcome
    cases: Count = 0
    endpoints: tuple[EndpointSaid, ...] = Field(default=(), max_length=MOST_ENDPOINTS)
    worst_loss: Number | None = None
    opened_before: Count = 0


class Answer(Message):
    """All that leaves a site for one request. ``request_sha256`` binds it to that request. ``pick`` is the candidate that
    the site's own rules choose, None where none is shown; ``failure`` and ``exit_code`` say why there are no numbers.
    ``sum`` is the site's part in a secure sum, masked."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    site: SiteName
    number: int = Field(ge=1, le=MOST_REQUESTS)
    kind: Literal["measured", "confirmed", "summed", "failed"]
    release: Digest
    request_sha256: Sha256
    board: BoardSaid | None = None
    baseline: BaselineSaid | None = None
    cells: tuple[CellSaid, ...] = Field(default=(), max_length=MOST_CANDIDATES)
    pick: int | None = Field(default=None, ge=0, lt=MOST_CANDIDATES)
    confirmed: ConfirmedSaid | None = None
    failure: Kind = ""
    exit_code: int = Field(default=0, ge=0, le=4)
    sum: SumSaid | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, serialize_by_alias=True)

    def cell(self, candidate: int) -> CellSaid | None:
        return next((item for item in self.cells if item.candidate == candidate), None)


def read_message(kind: type[Said], data: bytes, asked: str, most_bytes: int) -> Said:
    """The message in ``data``. Raises ``DataError`` for more than ``most_bytes``, for what is no JSON, and for any field
    that is not in the class or not of its kind."""
    if len(data) > most_bytes:
        raise DataError(
            asked, f"it has {len(data)} bytes, and at most {most_bytes} are read", "Refuse it: nobody of ours wrote it"
        )
    try:
        parsed(data)  # within depths and sizes of numbers that Python's own reader does not hold
        return kind.model_validate_json(data)
    except ValidationError as exc:
        problem = exc.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the whole"
        raise DataError(asked, f"{where}: {problem['msg']}", "Both ends must be of one release") from None
    except (ValueError, RecursionError) as exc:
        raise DataError(asked, f"it is no message ({str(exc)[:120]})", "Have it sent again") from None


def rounded(value: float | None) -> float | None:
    """A number as it may leave."""
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def plain(point: dict[str, Any]) -> dict[str, Any]:
    """A candidate as it stands in texts and hashes: by key."""
    return dict(sorted(point.items()))
