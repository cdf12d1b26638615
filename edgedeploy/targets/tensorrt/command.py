"""``trtexec`` command lines, release by release, as argument lists.

Every setting that changes the result is passed, because defaults changed: from 11.0 on CUDA graphs and spin-waiting are on
and transfers off. Numbers of different majors, or of different :class:`Conditions`, do not compare. ``--skipInference`` is
never used: with it, a broken engine prints PASSED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.targets.tensorrt.dla import DlaRequest
from edgedeploy.targets.tensorrt.graphview import GraphView
from edgedeploy.targets.tensorrt.version import OLDEST, TrtVersion

WORKSPACE_MIB: Final = 1024
"""Most scratch memory for one kernel: 8.0 takes 16 MiB by itself, too little for its fast convolutions."""

ALWAYS_TYPED: Final = TrtVersion(11, 0)
"""From here on the types of the file decide, and the flags of precisions are gone."""

TYPED_ON_REQUEST: Final = TrtVersion(10, 0)
LAYER_PRECISIONS: Final = TrtVersion(8, 4)
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
    """How a run is timed. The defaults are what every release from 8.0 to 11 can be told to do."""

    warmup_ms: int = 500
    duration_s: int = 10
    queries: int = 662
    spin_wait: bool = True
    cuda_graph: bool = True
    transfers: bool = False

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Typing:
    """The precisions that a file's layers have, each once, and the names of those in float32."""

    precisions: tuple[str, ...]
    float32: tuple[str, ...] = ()

    @classmethod
    def of(cls, view: GraphView, precision: str) -> Typing:
        """Of a file that was built in ``precision``: its own comes first, those of single layers follow."""
        found = view.layer_types
        wide = tuple(name for name, kind in found.items() if kind == "float32")
        return cls(tuple(dict.fromkeys((precision, *sorted(set(found.values()) & set(_PRECISION_FLAGS))))), wide)


def build_command(
    trtexec: str, version: TrtVersion, *, onnx: str, plan: str, typing: Typing, dla: DlaRequest | None = None
) -> list[str]:
    """Build an engine, save it, and run it once. Raises ``Unsupported``."""
    require_release(version)
    flags = _precision_flags(version, typing, dla)
    pool = f"--memPoolSize=workspace:{WORKSPACE_MIB}" if version >= MEMORY_POOLS else f"--workspace={WORKSPACE_MIB}"
    return [
        trtexec,
        f"--onnx={onnx}",
        f"--saveEngine={plan}",
        *flags,
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
    """Time a saved engine. Raises ``Unsupported`` for conditions that the release cannot be told."""
    require_release(version)
    wanted = {
        "--useSpinWait": conditions.spin_wait,
        "--useCudaGraph": conditions.cuda_graph,
        "--noDataTransfers": not conditions.transfers,
    }
    off = [flag for flag, on in wanted.items() if not on]
    if off and version >= ALWAYS_TYPED:
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
    """Per-layer times in a run of their own: the profiler slows the network down. Raises ``Unsupported`` before 8.2."""
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
    """Run one case and export what it answers. ``inputs`` maps tensor to file on the board.

    The warm-up stays as it is: with ``--warmUp=0`` some releases now and then time no query and export nothing.
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


def _precision_flags(version: TrtVersion, typing: Typing, dla: DlaRequest | None) -> list[str]:
    """Make the builder keep the file's types. On DLA, and before 10.0, networks are weakly typed: a flag allows a precision
    everywhere, and layers that have to stay wide are named."""
    foreign = [name for name in typing.precisions if name not in _PRECISION_FLAGS]
    if foreign:
        raise Unsupported(
            f"precision {foreign[0]!r} in TensorRT", f"it has {', '.join(_PRECISION_FLAGS)}", "Choose one"
        )
    if version >= ALWAYS_TYPED:
        return []
    if version >= TYPED_ON_REQUEST and dla is None:
        return ["--stronglyTyped"]
    flags = [flag for name in _PRECISION_FLAGS if name in typing.precisions for flag in _PRECISION_FLAGS[name]]
    if "float16" not in typing.precisions or not typing.float32:
        return flags
    asked = f"layer {typing.float32[0]!r} in float32 beside float16 on TensorRT {version}"
    if version < LAYER_PRECISIONS:
        raise Unsupported(asked, "--layerPrecisions came with 8.4", "Upgrade JetPack, or build it in one precision")
    if any(sign in name for name in typing.float32 for sign in ":,'\""):
        raise Unsupported(asked, "the flag is split at colons, commas and quotes", "Rename the layers")
    spec = ",".join(f"{name}:fp32" for name in typing.float32)
    return [*flags, "--precisionConstraints=obey", f"--layerPrecisions={spec}"]


def _verbosity(version: TrtVersion) -> str:
    return "--profilingVerbosity=detailed" if version >= MEMORY_POOLS else "--nvtxMode=verbose"


def _dla_flags(version: TrtVersion, dla: DlaRequest | None) -> list[str]:
    if dla is None:
        return []
    return [f"--useDLACore={dla.core}", *(["--allowGPUFallback"] if dla.gpu_fallback else [])]
