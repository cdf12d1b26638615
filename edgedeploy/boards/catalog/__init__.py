"""Descriptions of boards: one TOML file each, every fact with its source. Unknown facts are left out.

A description tells people what to expect of a board; measurements use only what the board itself reports. A new board
is one more file here, or anywhere with :func:`load_board`.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgedeploy.errors import SpecError, nearest
from edgedeploy.spec.source import SpecSource, first_error

MAX_FILE_BYTES: Final = 1 << 16

Use = Literal["cpu", "gpu", "npu", "dla"]


class Fact(BaseModel):
    """A claim about a board. ``source`` is a key of the file's ``[sources]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str


class Hardware(Fact):
    """What the board computes with: one line for people, and the kinds of unit in it."""

    text: str
    units: tuple[Use, ...] = Field(min_length=1)


class Sensor(Fact):
    """Something that can be read. ``reader`` names the module of ``runtime/sensors/`` that does; None when nothing
    of ours reads it."""

    what: Literal["temperature", "clock", "throttle", "power", "memory"]
    where: str
    unit: str
    root: bool = False
    reader: Literal["sysfs", "tegrastats", "power", "jetson"] | None = None
    note: str = ""


class PowerRail(Fact):
    """A rail by the name that the board prints. ``total`` rails add up to everything that the module draws."""

    name: str
    covers: str
    total: bool = False


class PowerMode(Fact):
    """A mode, with the key of a study's ``[[boards]]`` table that sets it and its value there."""

    name: str
    key: Literal["nvpmodel", "governor"]
    value: str
    text: str = ""


class Runtime(Fact):
    """A backend that runs here, under the name of its target, and on which units."""

    target: Literal["onnxruntime", "openvino", "litert", "tensorrt"]
    units: tuple[Use, ...] = Field(min_length=1)
    note: str = ""


class Limit(Fact):
    """A limitation to know before trusting a number of this board."""

    text: str


class BoardDescription(BaseModel):
    """One file. ``id`` is its name without the suffix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    name: str = Field(min_length=1)
    sources: dict[str, str] = Field(min_length=1)
    hardware: Hardware
    sensors: tuple[Sensor, ...] = Field(min_length=1)
    power_rails: tuple[PowerRail, ...] = ()
    power_modes: tuple[PowerMode, ...] = ()
    runtimes: tuple[Runtime, ...] = Field(min_length=1)
    limits: tuple[Limit, ...] = ()

    @model_validator(mode="after")
    def _every_fact_has_a_source(self) -> BoardDescription:
        cited = {fact.source for fact in self.facts()}
        unknown = sorted(cited - set(self.sources))
        if unknown:
            raise ValueError(f"source {unknown[0]!r} is not in [sources]. {nearest(unknown[0], self.sources)}")
        idle = sorted(set(self.sources) - cited)
        if idle:
            raise ValueError(f"source {idle[0]!r} supports no fact: remove it, or cite it")
        return self

    def facts(self) -> tuple[Fact, ...]:
        groups = (self.sensors, self.power_rails, self.power_modes, self.runtimes, self.limits)
        return (self.hardware, *(fact for group in groups for fact in group))

    @property
    def total_rails(self) -> tuple[str, ...]:
        """The rails that together are the whole module; empty where no rail is known to be."""
        return tuple(rail.name for rail in self.power_rails if rail.total)

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def lines(self) -> list[tuple[str, str, str]]:
        """Every fact for people: what it is about, its text, the key of its source."""
        lines = [("hardware", self.hardware.text, self.hardware.source)]
        for sensor in self.sensors:
            notes = [sensor.unit, *(["root only"] if sensor.root else []), *([sensor.note] if sensor.note else [])]
            notes += [] if sensor.reader else ["not read by edgedeploy"]
            lines.append((sensor.what, f"{sensor.where} ({'; '.join(notes)})", sensor.source))
        for rail in self.power_rails:
            lines.append(("power rail", f"{rail.name}: {rail.covers}{' (total)' if rail.total else ''}", rail.source))
        for mode in self.power_modes:
            text = f": {mode.text}" if mode.text else ""
            lines.append(("power mode", f"{mode.name} ({mode.key} = {mode.value}){text}", mode.source))
        for runtime in self.runtimes:
            note = f": {runtime.note}" if runtime.note else ""
            lines.append(("runtime", f"{runtime.target} on {', '.join(runtime.units)}{note}", runtime.source))
        return lines + [("limit", limit.text, limit.source) for limit in self.limits]


def load_board(path: Path) -> BoardDescription:
    """One description. Raises ``SpecError`` that names the file, the line and the key."""
    asked = f"board description {path}"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SpecError(asked, f"it is larger than {MAX_FILE_BYTES} bytes", "A description is a few KB of TOML")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(asked, f"it cannot be read ({exc})") from None
    return parse_board(text, path)


def parse_board(text: str, path: Path) -> BoardDescription:
    """As :func:`load_board`, from text; ``path`` names it in errors and gives the board its id."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SpecError(f"board description {path}", f"not TOML: {exc}") from None
    source = SpecSource(path, text)
    if "id" in data:
        raise source.error("id", "unknown key: the file's name is the board's id")
    try:
        return BoardDescription.model_validate({"id": path.name.removesuffix(".toml"), **data})
    except ValidationError as exc:
        raise first_error(exc, source, BoardDescription, public=True) from None


def load_catalog() -> tuple[BoardDescription, ...]:
    """Every description that ships with edgedeploy, by id."""
    entries = sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name)
    return tuple(
        parse_board(entry.read_text(encoding="utf-8"), Path(entry.name))
        for entry in entries
        if entry.name.endswith(".toml")
    )
