"""What a board is, as its probe found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgedeploy.records.metrics import Clock
from edgedeploy.runtime.wire.serde import from_json

Provenance = Literal["measured", "emulated", "predicted", "bound"]


@dataclass(frozen=True)
class BoardInfo:
    """Identity and abilities of a board as its probe found them.

    ``identity`` names the installation (a digest of its machine id), which cloned SD cards share; ``host_key`` is the
    type and fingerprint of its SSH host key, empty where none was seen. ``boot_id`` names the boot; ``runtimes`` maps target
    name to runtime version; ``isa`` the instruction sets that matter here (``avx2``, ``avx512_vnni``, ``amx_int8`` ...),
    ``isa_known`` those that its probe looked for (empty in records of probes that did not say).
    ``accelerators`` are what it has beside its CPU (``GPU ...``, ``DLA ...``, ``NPU ...``), used or not.
    ``leased_cores`` are those of its machine that it has, empty for the whole machine.
    ``power_modes`` maps the modes that may be asked for to what sets them (``governor``, ``nvpmodel``).
    """

    name: str
    provenance: Provenance
    identity: str
    boot_id: str
    cpu: str
    arch: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    os: str
    python: str
    runtimes: Mapping[str, str]
    governor: str | None
    notes: tuple[str, ...] = ()
    clock: Clock = "wall"
    power_modes: Mapping[str, str] = field(default_factory=dict)
    serial: str = ""
    image: str = ""
    accelerators: tuple[str, ...] = ()
    isa_known: tuple[str, ...] = ()
    host_key: str = ""
    codecs: str = ""
    leased_cores: tuple[int, ...] = ()

    @property
    def kernel(self) -> str:
        """Names the kernel that runs: boards of one kernel (containers, several SSH servers) share one processor, and
        clones of one card have two."""
        return self.boot_id or self.identity

    @property
    def seat(self) -> str:
        """Names what it has of its machine: boards of one seat take turns."""
        return " ".join((self.kernel, *map(str, self.leased_cores)))

    def other_machine(self, other: BoardInfo) -> tuple[str, ...]:
        """The differences that make this another machine than ``other``. Host keys count where both were seen and are of
        one type: a server has several, and which one it shows is up to the client."""
        names = ["identity", "serial"]
        kinds = [board.host_key.partition(" ")[0] for board in (self, other)]
        names += ["host_key"] if kinds[0] == kinds[1] else []
        return self._others(other, tuple(names))

    def unlike(self, other: BoardInfo) -> tuple[str, ...]:
        """The differences that make this board another kind than ``other``. Only boards of one kind may share a
        front."""
        return (*self.other_hardware(other), *self.other_software(other))

    def other_hardware(self, other: BoardInfo) -> tuple[str, ...]:
        rest = self._others(other, ("provenance", "clock", "cores", "accelerators"))
        return (*self.other_processor(other), *rest)

    def other_processor(self, other: BoardInfo) -> tuple[str, ...]:
        """Differences of the processor. Its flags decide which kernels the runtimes choose, and so what they
        compute."""
        return (*self._others(other, ("cpu", "arch")), *self._other_flags(other))

    def other_software(self, other: BoardInfo) -> tuple[str, ...]:
        return self._others(other, ("image", "python", "runtimes", "governor"))

    def _others(self, other: BoardInfo, names: tuple[str, ...]) -> tuple[str, ...]:
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        return tuple(f"{name} {getattr(self, name)!r}, not {getattr(other, name)!r}" for name in found)

    def _other_flags(self, other: BoardInfo) -> tuple[str, ...]:
        """Flags that differ, among those that both probes looked for. A probe that does not say what it looked for
        counts as having looked only for the flags it found."""
        ours, theirs = set(self.isa), set(other.isa)
        if self.isa_known or other.isa_known:
            both = set(self.isa_known or self.isa) & set(other.isa_known or other.isa)
            ours, theirs = ours & both, theirs & both
        apart = (("without", theirs - ours), ("with", ours - theirs))
        words = [f"{word} {', '.join(sorted(flags))}" for word, flags in apart if flags]
        return (f"CPU flags {' and '.join(words)}",) if words else ()

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "clock": self.clock,
            "provenance": self.provenance,
            "identity": self.identity,
            "boot_id": self.boot_id,
            "cpu": self.cpu,
            "arch": self.arch,
            "isa": list(self.isa),
            "isa_known": list(self.isa_known),
            **({"host_key": self.host_key} if self.host_key else {}),  # boards without SSH, and older files, have none
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "os": self.os,
            "python": self.python,
            "runtimes": dict(self.runtimes),
            "governor": self.governor,
            "notes": list(self.notes),
            "power_modes": dict(self.power_modes),
            "serial": self.serial,
            "image": self.image,
            "accelerators": list(self.accelerators),
            **({"codecs": self.codecs} if self.codecs else {}),  # older files have none
            **({"leased_cores": list(self.leased_cores)} if self.leased_cores else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BoardInfo:
        """Unknown keys are ignored. Raises ``ValueError`` for values of another form."""
        return from_json(cls, data, kept=True)


@dataclass(frozen=True)
class GoldenProof:
    """``cases`` golden vectors passed; ``relative_l2`` is the worst distance of each output, ``share_differing`` that of the
    result's elements (None in a bundle without steps)."""

    cases: int
    relative_l2: Mapping[str, float]
    share_differing: float | None


@dataclass(frozen=True)
class LoadedBundle:
    """What a board says of a bundle that is ready there: its name, release and identity, and the device that runs it."""

    ready: str
    release: int
    identity: str
    device: str
    proof: GoldenProof
