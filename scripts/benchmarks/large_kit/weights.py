"""Weights of transformers: a real text encoder (:mod:`.minilm`) in every narrow precision, beside ONNX Runtime's float32.

Agreement is the cosine of a sentence's embedding with that of ONNX Runtime's float32, the mean over 200 sentences and the
worst. Sessions take turns, block by block, in one process on one thread; what is told is the median over rounds of the CPU
time beside float32's in the same round, with quartiles.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.large_kit.minilm import Material, NotAtHand, material
from benchmarks.shared.rows import Asked, Row
from benchmarks.shared.turns import cpu_times
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import Artifact
from edgedeploy.runtime.sessions.open import open_session

ROUNDS: Final = 12
QUERIES: Final = 3
EMULATED: Final = 12
"""Sentences that an emulated processor answers: each takes seconds there."""
MOST_TIME, LEAST_AGREEMENT = 0.6, 0.98
MOST_MB, LEAST_BY_FOUR_BITS = 14.0, 0.97
EMULATOR: Final = "qemu-x86_64-static"
ANSWER: Final = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
rows = np.load(sys.argv[1])
for path in sys.argv[3:]:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"ids": ids, "mask": mask})[0] for ids, mask in zip(rows["ids"], rows["mask"])]
    np.save(f"{path}.npy", np.concatenate(found))
    del session
"""


@dataclass(frozen=True)
class Build:
    """What is built: a target's name, and the fields of its request."""

    target: str
    precision: str
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.target, self.precision, *(f"{key} {value}" for key, value in self.more)])


@dataclass(frozen=True)
class Found:
    """One build beside ONNX Runtime's float32: quartiles of the ratio of CPU times, cosines, signal to error
    over all sentences, bytes."""

    ratio: tuple[float, float, float]
    mean: float
    worst: float
    sqnr_db: float
    size_bytes: int

    @property
    def text(self) -> str:
        low, middle, high = self.ratio
        near = f"agreement {self.mean:.4f} (worst {self.worst:.3f}), SQNR {self.sqnr_db:.1f} dB"
        return f"{middle:.2f}x ({low:.2f} to {high:.2f}), {near}, {self.size_bytes / 1e6:.2f} MB"


FLOAT: Final = Build("onnxruntime", "float32")
STATIC: Final = (Build("onnxruntime", "int8"), Build("openvino", "int8"))
FOR_TRANSFORMERS: Final = (
    Build("onnxruntime", "int8", (("quantizer", "onnxruntime-products"),)),
    Build("onnxruntime", "int8", (("quantizer", "onnxruntime-smooth"),)),
    Build("openvino", "int8", (("quantizer", "nncf-transformer"),)),
)
FAST: Final = (
    Build("onnxruntime", "int8-dynamic"),
    Build("onnxruntime", "int8-weights"),
    Build("openvino", "int8-weights"),
)
FOUR_BITS: Final = (Build("onnxruntime", "int4-weights"), Build("openvino", "int4-weights"))
WITHOUT_VNNI: Final = (Build("onnxruntime", "int8-dynamic", (("weight_bits", 7),)), *FAST[:2])


@functools.cache
def place() -> tempfile.TemporaryDirectory[str]:
    """A folder until the program ends."""
    return tempfile.TemporaryDirectory(prefix="edgedeploy-weights-")


@functools.cache
def encoder() -> Material:
    return material(Path(place().name))


@functools.cache
def built(wanted: Build) -> tuple[Artifact, Path]:
    from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
    from edgedeploy.targets.openvino.target import OpenVinoTarget

    given = encoder()
    target = next(made for made in (OnnxRuntimeTarget(), OpenVinoTarget()) if made.name == wanted.target)
    reference = given.reference
    asked = BuildRequest(
        reference.path,
        reference.inputs,
        reference.outputs,
        wanted.precision,
        lambda: iter(given.calibration),
        **dict(wanted.more),
    )
    folder = Path(place().name) / wanted.name.replace(" ", "-")
    return target.build(asked, folder), folder


def session_of(wanted: Build) -> Any:
    artifact, folder = built(wanted)
    return open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)


def answers(session: Any, feeds: Sequence[Mapping[str, Any]]) -> Any:
    """Embeddings (sentences, 384)."""
    return np.concatenate([next(iter(session.run(feed).values())) for feed in feeds])


def cosines(wanted: Any, found: Any) -> Any:
    return (wanted * found).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(found, axis=1)


def compared(builds: Sequence[Build]) -> dict[Build, Found]:
    """Each beside ONNX Runtime's float32, in turns."""
    feeds = encoder().feeds
    sessions = {wanted: session_of(wanted) for wanted in (FLOAT, *builds)}
    times = cpu_times(list(sessions.values()), feeds[:QUERIES], ROUNDS)
    exact = answers(sessions[FLOAT], feeds)
    found = {}
    for index, wanted in enumerate(builds, 1):
        embeddings = answers(sessions[wanted], feeds)
        near = cosines(exact, embeddings)
        sqnr_db = 20 * float(np.log10(np.linalg.norm(exact) / np.linalg.norm(embeddings - exact)))
        low, middle, high = (float(value) for value in np.percentile(times[index] / times[0], [25, 50, 75]))
        size = built(wanted)[0].size_bytes
        found[wanted] = Found((low, middle, high), float(near.mean()), float(near.min()), sqnr_db, size)
    return found


def told(found: Mapping[Build, Found]) -> str:
    return "; ".join(f"{wanted.name} {result.text}" for wanted, result in found.items())


@dataclass(frozen=True)
class Bar:
    """A bar in words, and whether one build reaches it."""

    text: str
    reached: Callable[[Found], bool]


NO_BAR: Final = Bar("", lambda found: True)
FAST_AND_NEAR: Final = Bar(
    f"a build at <= {MOST_TIME}x with agreement >= {LEAST_AGREEMENT}",
    lambda found: found.ratio[1] <= MOST_TIME and found.mean >= LEAST_AGREEMENT,
)
SMALL_AND_NEAR: Final = Bar(
    f"a file of <= {MOST_MB:g} MB at agreement >= {LEAST_BY_FOUR_BITS}",
    lambda found: found.size_bytes <= MOST_MB * 1e6 and found.mean >= LEAST_BY_FOUR_BITS,
)


def absent(what: str, bar: str, error: NotAtHand) -> Row:
    """A row that says why it could not be made; where there is a bar, it is not held."""
    return Row(what, f"skipped: {error}", bar, holds=False)


def beside_float(what: str, builds: Sequence[Build], bar: Bar = NO_BAR) -> Row:
    """Builds beside ONNX Runtime's float32. One that reaches the bar is enough."""
    try:
        found = compared(builds)
    except NotAtHand as error:
        return absent(what, bar.text, error)
    return Row(what, told(found), bar.text, any(bar.reached(item) for item in found.values()))


def weights_static(asked: Asked) -> Row:
    """What calibrated int8 makes of the encoder, without a bar: the baseline."""
    return beside_float("MiniLM (22.6 M parameters, 128 tokens, 1 thread): static int8", STATIC)


def weights_smooth(asked: Asked) -> Row:
    """What is left of static int8's error where products alone are narrowed, and where their inputs are smoothed."""
    return beside_float("MiniLM: static int8 by the quantizers for transformers", FOR_TRANSFORMERS, FAST_AND_NEAR)


def weights_fast(asked: Asked) -> Row:
    return beside_float("MiniLM: CPU time beside ONNX Runtime float32, on this processor", FAST, FAST_AND_NEAR)


def weights_four_bits(asked: Asked) -> Row:
    return beside_float("MiniLM: 4-bit weights", FOUR_BITS, SMALL_AND_NEAR)


def weights_avx2_agreement(asked: Asked) -> Row:
    """By an emulated Haswell's kernels; its time is no processor's."""
    what = f"MiniLM: an emulated AVX2-only processor (Haswell by QEMU), {EMULATED} sentences"
    bar = f"int8 of 7 bits with agreement >= {LEAST_AGREEMENT}; its time cannot be shown by an emulator"
    emulator = shutil.which(EMULATOR)
    try:
        if emulator is None:
            raise NotAtHand(f"no {EMULATOR} on this machine: apt-get install qemu-user-static")
        feeds = encoder().feeds[:EMULATED]
        exact = answers(session_of(FLOAT), feeds)
        paths = [built(wanted)[1] / built(wanted)[0].entry for wanted in WITHOUT_VNNI]
    except NotAtHand as error:
        return absent(what, bar, error)
    rows = Path(place().name) / "rows.npz"
    np.savez(rows, ids=np.stack([feed["ids"] for feed in feeds]), mask=np.stack([feed["mask"] for feed in feeds]))
    command = [emulator, "-cpu", "Haswell", sys.executable, "-c", ANSWER, str(rows), "-", *map(str, paths)]
    subprocess.run(command, check=True, capture_output=True, timeout=1200)
    near = [cosines(exact, np.load(f"{path}.npy")) for path in paths]
    text = "; ".join(
        f"{wanted.name} {found.mean():.4f} (worst {found.min():.3f})"
        for wanted, found in zip(WITHOUT_VNNI, near, strict=True)
    )
    return Row(what, text, bar, bool(near[0].mean() >= LEAST_AGREEMENT))


ROWS: Final = (weights_static, weights_smooth, weights_fast, weights_four_bits, weights_avx2_agreement)
