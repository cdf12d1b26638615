"""``trtexec`` command lines, release by release, as argument lists.

Every setting that changes the result is passed, because defaults have changed: from 11.0 on, CUDA graphs and
spin-waiting are on and transfers off. Numbers of different major releases, or of different :class:`Conditions`, cannot
be compared. ``--skipInference`` is never used: with it, a broken engine prints PASSED.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.records.metrics import QUERIES_FOR_PERCENTILE
from edgedeploy.runtime.sessions.tensorrt.engine import WORKSPACE_BYTES
from edgedeploy.targets.tensorrt.trtexec.dla import DlaRequest
from edgedeploy.targets.tensorrt.version import OLDEST, TrtVersion

WORKSPACE_MIB: Final = WORKSPACE_BYTES >> 20
"""Limit of scratch memory for one kernel. The default of 8.0, 16 MiB, is too little for its fast convolutions."""

STRONG_TYPES: Final = TrtVersion(10, 0)
"""The first release whose trtexec can take layer types from the file. DLA does not support such networks."""

ONLY_STRONG_TYPES: Final = TrtVersion(11, 0)
MEMORY_POOLS: Final = TrtVersion(8, 4)
LAYER_INFO: Final = TrtVersion(8, 2)
SEVERAL_PERCENTILES: Final = TrtVersion(8, 5)

_PRECISION_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "float32": (),
    "float16": ("--fp16",),
    "int8": ("--int8",),
}


@dataclass(frozen=True)
class Conditions:
    """How a run is timed. Every release from 8.0 to 11 supports the defaults."""

    warmup_ms: int = 500
    duration_s: int = 10
    queries: int = QUERIES_FOR_PERCENTILE[99]
    spin_wait: bool = True
    cuda_graph: bool = True
    transfers: bool = False

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def build_command(
    trtexec: str,
    version: TrtVersion,
    *,
    onnx: str,
    plan: str,
    precisions: Sequence[str],
    dla: DlaRequest | None = None,
) -> list[str]:
    """Build an engine, save it, and run it once. ``precisions`` are the model's own and those of single layers. Raises
    ``Unsupported``."""
    require_release(version)
    pool = f"--memPoolSize=workspace:{WORKSPACE_MIB}" if version >= MEMORY_POOLS else f"--workspace={WORKSPACE_MIB}"
    return [
        trtexec,
        f"--onnx={onnx}",
        f"--saveEngine={plan}",
        *_precision_flags(version, precisions, dla),
        "--noTF32",  # or float32 convolutions keep 10 bits of mantissa on Ampere and newer
        pool,
        _verbosity(version),
        *_dla_flags(version, dla),
        "--iterations=1",
        "--duration=0",
    ]


def timing_command(
    trtexec: str, version: TrtVersion, *, plan: str, times: str, conditions: Conditions, dla: DlaRequest | None = None
) -> list[str]:
    """Time a saved engine. Raises ``Unsupported`` for conditions that the release does not support."""
    require_release(version)
    wanted = {
        "--useSpinWait": conditions.spin_wait,
        "--useCudaGraph": conditions.cuda_graph,
        "--noDataTransfers": not conditions.transfers,
    }
    off = [flag for flag, on in wanted.items() if not on]
    if off and version >= ONLY_STRONG_TYPES:
        found = "11.0 turned them on by default"
        raise Unsupported(f"a run without {', '.join(off)} on TensorRT {version}", found, "Use the default conditions")
    return [
        trtexec,
        f"--loadEngine={plan}",
        f"--exportTimes={times}",
        f"--warmUp={conditions.warmup_ms}",
        f"--duration={conditions.duration_s}",
        f"--iterations={conditions.queries}",
        "--avgRuns=1",
        "--percentile=90,95,99" if version >= SEVERAL_PERCENTILES else "--percentile=99",
        *(flag for flag, on in wanted.items() if on),
        *_dla_flags(version, dla),
    ]


def profile_command(
    trtexec: str, version: TrtVersion, *, plan: str, profile: str, layers: str, dla: DlaRequest | None = None
) -> list[str]:
    """Per-layer times in a separate run, because the profiler slows the network down. Raises ``Unsupported`` before
    8.2."""
    require_release(version)
    if version < LAYER_INFO:
        raise Unsupported(
            f"per-layer times on TensorRT {version}", "--exportLayerInfo came with 8.2", "Upgrade JetPack"
        )
    return [
        trtexec,
        f"--loadEngine={plan}",
        f"--exportProfile={profile}",
        f"--exportLayerInfo={layers}",
        "--dumpProfile",
        "--separateProfileRun",
        _verbosity(version),
        *_dla_flags(version, dla),
    ]


def output_command(
    trtexec: str,
    version: TrtVersion,
    *,
    plan: str,
    inputs: Mapping[str, str],
    outputs: str,
    dla: DlaRequest | None = None,
) -> list[str]:
    """Run one case and export its outputs. ``inputs`` maps tensor to file on the board.

    The warm-up keeps its default: with ``--warmUp=0`` some releases occasionally time no query and export nothing.
    """
    require_release(version)
    odd = [text for pair in inputs.items() for text in pair if any(sign in text for sign in ":,'\"")]
    if odd:
        raise Unsupported(
            f"input {odd[0]!r} for trtexec", "its flag is split at colons, commas and quotes", "Rename it"
        )
    return [
        trtexec,
        f"--loadEngine={plan}",
        "--loadInputs=" + ",".join(f"{name}:{path}" for name, path in inputs.items()),
        f"--exportOutput={outputs}",
        "--iterations=1",
        "--duration=0",
        *_dla_flags(version, dla),
    ]


def require_release(version: TrtVersion) -> None:
    """Raises ``Unsupported`` for releases whose parser takes no per-channel QDQ."""
    if version < OLDEST:
        raise Unsupported(f"TensorRT {OLDEST} or newer", f"the board has {version}", "Upgrade JetPack to 4.6 or newer")


def _precision_flags(version: TrtVersion, precisions: Sequence[str], dla: DlaRequest | None) -> list[str]:
    if version >= ONLY_STRONG_TYPES:
        return []
    if version >= STRONG_TYPES and dla is None:
        return ["--stronglyTyped"]
    lacking = [name for name in precisions if name not in _PRECISION_FLAGS]
    if lacking:
        found = f"without strong types it has {', '.join(_PRECISION_FLAGS)}"
        raise Unsupported(f"precision {lacking[0]!r} in TensorRT {version}", found, "Choose one of these")
    return list(dict.fromkeys(flag for name in precisions for flag in _PRECISION_FLAGS[name]))


def _verbosity(version: TrtVersion) -> str:
    return "--profilingVerbosity=detailed" if version >= MEMORY_POOLS else "--nvtxMode=verbose"


def _dla_flags(version: TrtVersion, dla: DlaRequest | None) -> list[str]:
    if dla is None:
        return []
    return [f"--useDLACore={dla.core}", *(["--allowGPUFallback"] if dla.gpu_fallback else [])]
