"""One board as a study file names it: ``[[boards]]``, or a word such as ``emulated:arm64``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator

from edgedeploy.errors import SpecError, nearest
from edgedeploy.records.units import human, parse_quantity
from edgedeploy.spec.scenarios import Seconds, Table, quantity_schema

DEFAULT_PORT = 22
DEFAULT_ROOT = "~/.edgedeploy"
DEFAULT_AWAY_S = 300.0
EMULATED_WORD = "emulated:"
Machine = Literal["arm64", "arm64-system", "x86-avx2"]
MACHINES: tuple[Machine, ...] = get_args(Machine)
_SSH_WORD = re.compile(
    r"(?:(?P<user>[^@:\s-][^@:\s]*)@)?(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9a-fA-F:]+\])(?::(?P<port>[0-9]{1,5}))?"
)

PEAK: Final = "peak_memory_bytes"
"""The metric that a board's `memory` limits."""

LEAST_MEMORY_BYTES: Final = 16_000_000
"""An interpreter with numpy alone has more: a smaller limit is a slip."""

MOST_CORES: Final = 8191
"""Linux has room for no more processors."""

MOST_MEMORY_BYTES: Final = 1 << 50
"""More is a slip too, and no board's."""


def _size(text: str) -> str:
    size_bytes = parse_quantity(text, "bytes")
    if size_bytes < LEAST_MEMORY_BYTES:
        raise ValueError(f"expected {human(LEAST_MEMORY_BYTES, 'bytes')} or more, but got {text!r}")
    if size_bytes > MOST_MEMORY_BYTES:
        raise ValueError(f"expected what a board can have, but got {text!r}")
    return text


Size = Annotated[str, AfterValidator(_size), quantity_schema("bytes", "B", "KB", "MB", "GB", "KiB", "MiB", "GiB")]


class BoardTable(Table):
    """One machine that variants may be measured on."""

    name: str = Field(min_length=1, max_length=80)
    """Name of the board in options, tables and reports."""
    kind: Literal["local", "ssh", "emulated"]
    """This host, a machine over SSH, or an emulated one: an SSH server on this host, or with a machine's name behind a
    colon an emulated processor (emulated:arm64, emulated:arm64-system, emulated:x86-avx2)."""
    host: str | None = None
    """With kind = "ssh": its name or address, also an alias of ~/.ssh/config. Its host key must be known."""
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    """Port of its SSH server."""
    user: str | None = None
    """User there; ~/.ssh/config or this user when left out."""
    identity: str | None = None
    """File of the private key; what ~/.ssh/config and the agent have when left out."""
    known_hosts: str | None = None
    """File with the host keys that are known, instead of ~/.ssh/known_hosts."""
    python: str | None = None
    """Python on the board, 3.8 to 3.13, with numpy and the runtimes; python3 over SSH, this one on this host."""
    root: str = DEFAULT_ROOT
    """Folder on the board for the agent, artifacts and inputs."""
    server: Literal["auto", "embedded", "sshd"] = "auto"
    """With kind = "emulated": which SSH server it is, this host's sshd or the one that comes with edgedeploy."""
    governor: str | None = None
    """CPU frequency governor, such as "performance", set for each run and restored after it."""
    nvpmodel: Annotated[int, Field(ge=0)] | str | None = None
    """Power mode of a Jetson, by number or name, set for each run and restored after it, even after a crash. A board that
    does not allow it refuses the run."""
    power_cycle: tuple[str, ...] = ()
    """A command on this host, with its arguments, that turns a board that hangs off and on."""
    away: Seconds = Field(default=DEFAULT_AWAY_S, ge=0, le=24 * 3600)
    """How long the board is waited for when it does not answer: at the start of a run, between two jobs, and after it was
    lost during one. Other boards of the study go on meanwhile. At most 24 h; 0 does not wait."""
    labgrid: str | None = Field(default=None, min_length=1)
    """The board's labgrid place. It is acquired for each session, and also turns the board off and on."""
    labgrid_coordinator: str | None = None
    """``HOST[:PORT]``; labgrid's own default otherwise, which is LG_COORDINATOR of the environment."""
    memory: Size | None = None
    """The most memory that the process of a variant may have on the board, its interpreter and runtime included, such as
    "512 MB". A variant with more is ended there, and is not on the front; the baseline runs without a limit, because
    ratios need it. The boards of a study have one `memory`, which is also a constraint on peak_memory_bytes, and brings
    the scenario `resources`."""
    cores: tuple[Annotated[int, Field(ge=0, le=MOST_CORES)], ...] = ()
    """Cores of the board's machine that this study has, by their numbers; left out, all of it. Studies that have other cores
    measure there at the same time, and each number says so."""
    machine: Machine | None = None
    """An emulated processor instead of this host's: ``kind = "emulated:arm64"`` says both in one word."""

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, table: Any) -> Any:
        """Accepts ``kind = "emulated:MACHINE"``, and that word alone (as ``--board`` takes it) for a whole table."""
        if isinstance(table, str):
            table = {"name": table, "kind": table}
        if isinstance(table, dict) and str(table.get("kind")).startswith(EMULATED_WORD) and "machine" not in table:
            machine = str(table["kind"]).removeprefix(EMULATED_WORD)
            return {**table, "kind": "emulated", "machine": machine}
        return table

    @model_validator(mode="after")
    def _machine_goes_with_emulated(self) -> BoardTable:
        if self.machine is not None and self.kind != "emulated":
            raise ValueError('`machine` goes with kind = "emulated", and only with it')
        if self.machine is not None and self.memory is not None:
            raise ValueError("an emulated processor has its emulator's memory: `memory` would say nothing of a board")
        return self

    @model_validator(mode="after")
    def _cores_are_shared(self) -> BoardTable:
        if len({*self.cores}) < len(self.cores):
            raise ValueError("`cores` names one twice")
        if self.cores and self.machine is not None:
            raise ValueError("an emulated processor has cores of its own: leave `cores` out")
        if self.cores and (self.governor is not None or self.nvpmodel is not None):
            raise ValueError("`cores` shares the machine with others, whose `governor` or `nvpmodel` it may not change")
        return self

    @model_validator(mode="after")
    def _host_goes_with_ssh(self) -> BoardTable:
        if (self.kind == "ssh") != (self.host is not None):
            raise ValueError('`host` goes with kind = "ssh", and only with it')
        if self.kind == "emulated" and (self.governor is not None or self.nvpmodel is not None):
            raise ValueError("an emulated board has no `governor` or `nvpmodel` of its own")
        if self.labgrid is None and self.labgrid_coordinator is not None:
            raise ValueError("`labgrid_coordinator` goes with `labgrid`")
        if self.kind == "emulated" and self.labgrid is not None:
            raise ValueError("an emulated board is no place of a labgrid")
        return self


def memory_bytes(boards: Iterable[BoardTable]) -> int | None:
    """What a variant may have in memory on these boards, None for no limit. Raises ``ValueError`` when they differ: a
    variant would be feasible on one and not on the other, and a front is of one kind of board."""
    given = {board.name: board.memory for board in boards}
    sizes = {None if size is None else round(parse_quantity(size, "bytes")) for size in given.values()}
    if len(sizes) > 1:
        told = ", ".join(f"{name} {size or 'none'}" for name, size in given.items())
        raise ValueError(f"the boards of a study have one `memory`, but got {told}")
    return next(iter(sizes), None)


def with_memory_limit(spec: dict[str, Any]) -> dict[str, Any]:
    """A study file's content whose boards have a `memory`, with what follows from it: a constraint on the peak, and the
    scenario that records memory over time. Anything else is left as it is, for its own check to tell."""
    boards = spec.get("boards")
    sizes = [board.get("memory") for board in boards if isinstance(board, dict)] if isinstance(boards, list) else []
    measure, constraints = spec.get("measure", {}), spec.get("constraints", [])
    if not sizes or not isinstance(sizes[0], str) or not isinstance(measure, dict) or not isinstance(constraints, list):
        return spec
    key = "protocols" if "protocols" in measure else "scenarios"
    scenarios = measure.get(key, [])
    if isinstance(scenarios, list) and "resources" not in scenarios:
        measure = {**measure, key: [*scenarios, "resources"]}
    if not any(_limits_peak(item, sizes[0]) for item in constraints):
        constraints = [*constraints, {"metric": PEAK, "at_most": sizes[0]}]
    return {**spec, "measure": measure, "constraints": constraints}


def _limits_peak(constraint: Any, size: str) -> bool:
    return isinstance(constraint, Mapping) and constraint.get("metric") == PEAK and constraint.get("at_most") == size


def board_of_word(word: str, python: str | None = None) -> BoardTable:
    """The board that a command line names in one word: ``local``, ``emulated``, ``emulated:MACHINE``, or for SSH
    ``host`` or ``user@host``, with ``:port`` behind it where it is not 22. ``python`` is the interpreter there.

    Raises ``SpecError``.
    """
    if word.startswith(EMULATED_WORD):
        return emulated_board(word)
    if word in ("local", "emulated"):
        return BoardTable.model_validate({"name": word, "kind": word, "python": python})
    match = _SSH_WORD.fullmatch(word)
    if match is None:
        known = ["local", "emulated", *(f"{EMULATED_WORD}{machine}" for machine in MACHINES)]
        raise SpecError(f"board {word!r}", "it is no board", f"{nearest(word, known)} Or user@host for one over SSH")
    table = {"name": word, "kind": "ssh", "host": match["host"].strip("[]"), "user": match["user"], "python": python}
    try:
        return BoardTable.model_validate({**table, "port": int(match["port"] or DEFAULT_PORT)})
    except ValidationError as exc:
        problem = exc.errors()[0]
        found = f"its {problem['loc'][0]}: {problem['msg']}"
        raise SpecError(f"board {word!r}", found, "Write user@host or user@host:port") from None


def emulated_board(word: str) -> BoardTable:
    """The board that ``emulated:MACHINE`` stands for. Raises ``SpecError`` for a machine that nobody knows."""
    try:
        return BoardTable.model_validate(word)
    except ValidationError:
        known = [f"{EMULATED_WORD}{machine}" for machine in MACHINES]
        raise SpecError(f"board {word!r}", "there is no such emulated machine", nearest(word, known)) from None
