"""Deep Learning Accelerator: the request for it, and the layers that run on it according to the build's log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.targets.tensorrt.rules import DLA_LOADABLES_PER_CORE


@dataclass(frozen=True)
class DlaRequest:
    """Run every layer that can on DLA core ``core``. Without ``gpu_fallback`` the build fails if a layer cannot."""

    core: int = 0
    gpu_fallback: bool = True


@dataclass(frozen=True)
class Fallback:
    """A layer that was requested for DLA but runs on the GPU. ``reason`` is TensorRT's, or empty."""

    layer: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """Where the layers of one engine run. ``dla`` names its loadables: each is one part of the network."""

    dla: tuple[str, ...]
    gpu: tuple[str, ...]
    fallbacks: tuple[Fallback, ...]

    def as_json(self) -> dict[str, Any]:
        return {"dla": list(self.dla), "gpu": list(self.gpu), "fallbacks": [vars(item) for item in self.fallbacks]}


_MOVED: Final = (
    re.compile(r"Layer '(?P<layer>.+)' \((?P<kind>\w+)\): Unsupported on DLA\. Switching"),
    re.compile(r"layer (?P<layer>.+) is not (?:supported|running) on DLA, falling back to GPU"),
    re.compile(
        r"(?P<reason>DLA only supports FP16 and Int8 precision type)\. Switching (?P<layer>.+) device type to GPU"
    ),
)
_REASON = re.compile(
    r"\[W\] (?:\[TRT\] )?(?:DLA Layer )?(?P<layer>\S.*?)(?:: | )(?P<reason>(?:DLA|For|does not support) ?.*)$"
)
_LISTED = re.compile(r"\[(Dla|Gpu)Layer\] (?:[A-Z_]+: )?(.+)$")


def cores_online(clocks: str) -> tuple[int, ...]:
    """DLA cores in the output of ``jetson_clocks --show``; empty on boards without."""
    return tuple(int(core) for core in re.findall(r"^DLA(\d)_CORE:\s+Online=1\b", clocks, re.MULTILINE))


def read_placement(log: str) -> Placement:
    """Fallbacks from the warnings, and the lists of layers that the builder prints at the end."""
    reasons = {match.group("layer"): match.group("reason") for match in map(_REASON.search, log.splitlines()) if match}
    fallbacks = {item.layer: item for item in _fallbacks(log, reasons)}
    placed: dict[str, list[str]] = {"Dla": [], "Gpu": []}
    for device, layer in (match.groups() for match in map(_LISTED.search, log.splitlines()) if match):
        placed[device].append(layer.strip())
    return Placement(tuple(placed["Dla"]), tuple(placed["Gpu"]), tuple(fallbacks.values()))


def check_placement(placement: Placement) -> None:
    """Raises ``Unsupported`` when nothing runs on DLA, or more parts than a core holds."""
    asked = "a network on DLA"
    if not placement.dla:
        moved = ", ".join(item.layer for item in placement.fallbacks[:5]) or "no layer is listed"
        raise Unsupported(asked, f"every layer fell back to the GPU ({moved})", "Run it on the GPU")
    if len(placement.dla) > DLA_LOADABLES_PER_CORE:
        found = f"it falls into {len(placement.dla)} parts, a core holds {DLA_LOADABLES_PER_CORE}"
        raise Unsupported(asked, found, "Replace the layers that fall back in the middle of the network")


def _fallbacks(log: str, reasons: Mapping[str, str]) -> Iterator[Fallback]:
    for line in log.splitlines():
        for pattern in _MOVED:
            if match := pattern.search(line):
                found = match.groupdict()
                layer = found["layer"]
                yield Fallback(layer, found.get("kind") or "", found.get("reason") or reasons.get(layer, ""))
                break
