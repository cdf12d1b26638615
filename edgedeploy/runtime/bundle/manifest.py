"""``bundle.json``, the manifest of a bundle, as frozen data. It comes from outside: :func:`parse` holds it to its form
and limits.

The types are evaluated, by Python 3.8 too: see :mod:`edgedeploy.runtime.wire.serde`.
"""

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Dict, Final, List, Literal, Mapping, Optional, Tuple

from edgedeploy.runtime.bundle.names import MANIFEST, MOST_FILE_BYTES, MOST_FILES, SIGNATURE, check_name
from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.wire.serde import WireError, from_json, to_json

FORMAT: Final = "edgedeploy-bundle"
VERSION = 1
ARTIFACT_FOLDER = "artifact"

MOST_MANIFEST_BYTES = 4 << 20
MOST_RELEASE = 2**53
MOST_CASES = 64
MOST_TENSORS = 64
MOST_STEPS = 32
MOST_DIMENSIONS = 8
MOST_ELEMENTS = 2**31
MOST_THREADS = 1024
_MOST_TEXT = 500
_MOST_DIGITS = 20

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DTYPES = (
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)

DATE = "%Y-%m-%dT%H:%M:%SZ"
"""How the manifest writes a moment: UTC, to the second."""


@dataclass(frozen=True)
class Tensor:
    """One input or output of the artifact; a dimension that is None is free."""

    name: str
    dtype: str
    shape: Tuple[Optional[int], ...]


@dataclass(frozen=True)
class Session:
    """What the target's session opens: the file, its settings (see ``open_session``) and the number of threads that was
    measured. ``states`` are those of a network that carries state from frame to frame, from input to output."""

    entry: str
    settings: Mapping[str, str]
    threads: int
    states: Mapping[str, str]


@dataclass(frozen=True)
class ArtifactPart:
    """``files`` are names below ``artifact/``. A ``recipe`` is built on the device, by the device's own toolchain."""

    kind: Literal["files", "recipe"]
    files: Tuple[str, ...]
    session: Session


@dataclass(frozen=True)
class Pipeline:
    """Steps before and after inference as they are written: :mod:`edgedeploy.runtime.pipeline` reads and runs them. Without
    steps for the input a product gives the artifact's inputs itself, without steps for the output it takes its outputs."""

    input: Tuple[Mapping[str, Any], ...]
    output: Tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class RuntimeRange:
    """Releases of the package that runs the artifact: from ``at_least`` on, without ``below``."""

    package: str
    at_least: str
    below: Optional[str]
    measured_with: str


@dataclass(frozen=True)
class Compatibility:
    """What a device must have. ``machine`` is ``platform.machine()``'s word; ``gpu`` and ``driver`` are None on a CPU."""

    runtime: RuntimeRange
    machine: str
    cpu_flags: Tuple[str, ...]
    gpu: Optional[str]
    driver: Optional[str]


@dataclass(frozen=True)
class GoldenCase:
    """Names of ``.npy`` files: the frame a product would give, the tensors made of it, the artifact's answers, the result
    after the last step. ``frame`` is None without steps for the input, ``result`` without steps for the output.
    Of a network that carries state a case is a clip: (frames, *shape) of each input and output that is no state."""

    id: str
    frame: Optional[str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    result: Optional[str]


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from the golden one: the Euclidean norm of the difference over that of the golden output,
    and the largest single difference where that is limited too."""

    relative_l2: float
    max_abs: Optional[float]


@dataclass(frozen=True)
class ResultTolerance:
    """The share of a result's elements that may differ."""

    share_differing: float


@dataclass(frozen=True)
class Golden:
    cases: Tuple[GoldenCase, ...]
    tolerance: Mapping[str, Tolerance]
    result_tolerance: Optional[ResultTolerance]


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """See the module's text. ``release`` rises with each release of that ``name``; ``files`` names every file of the bundle
    except the manifest itself and its signature."""

    format: Literal["edgedeploy-bundle"]
    version: int
    name: str
    release: int
    created: Optional[str]
    not_after: Optional[str]
    target: Literal["onnxruntime", "openvino", "litert", "tensorrt"]
    artifact: ArtifactPart
    inputs: Tuple[Tensor, ...]
    outputs: Tuple[Tensor, ...]
    pipeline: Pipeline
    compatibility: Compatibility
    golden: Golden
    files: Mapping[str, FileEntry]

    def as_json(self) -> Dict[str, Any]:
        value: Dict[str, Any] = to_json(self)
        return value

    def text(self) -> bytes:
        """The manifest as its file has it: equal manifests are equal bytes."""
        return (json.dumps(self.as_json(), sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def parse(text: bytes) -> Manifest:
    """The manifest in ``text``. Raises :class:`BundleError` ``malformed``: too large, no JSON, a key twice, an unknown or
    missing key, a value out of its form, a name of a file that ``files`` does not list."""
    if len(text) > MOST_MANIFEST_BYTES:
        raise _malformed(f"it has {len(text)} bytes, and at most {MOST_MANIFEST_BYTES} are read")
    try:
        data = json.loads(
            text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_whole
        )
        _hold_texts(data)
        _hold_version(data)
        manifest = from_json(Manifest, data)
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except (ValueError, WireError) as exc:
        raise _malformed(str(exc)) from exc
    _hold_head(manifest)
    _hold_files(manifest)
    _hold_artifact(manifest)
    _hold_golden(manifest)
    return manifest


def _malformed(found: str) -> BundleError:
    return BundleError("malformed", f"{MANIFEST}: {found}")


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} stands twice")
        found[key] = value
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _hold_texts(value: Any) -> None:
    """Keys and texts are short and can be shown: no control character, no half of a surrogate pair."""
    if isinstance(value, str) and (len(value) > _MOST_TEXT or not value.isprintable()):
        raise ValueError(f"a text is longer than {_MOST_TEXT} characters or cannot be shown: {ascii(value)[:80]}")
    if isinstance(value, dict):
        for key, item in value.items():
            _hold_texts(key)
            _hold_texts(item)
    elif isinstance(value, list):
        for item in value:
            _hold_texts(item)


def _hold_version(data: Any) -> None:
    """Before the form is read: a later version has other keys, and its reader should say which version it is."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"it is no {FORMAT}")
    if data.get("version") != VERSION or isinstance(data.get("version"), bool):
        found = ascii(data.get("version"))[:40]
        raise ValueError(
            f"version {found}, and this runtime reads version {VERSION}: install the runtime it was made for"
        )


def _hold_head(manifest: Manifest) -> None:
    if not NAME.fullmatch(manifest.name):
        raise _malformed(f"name {manifest.name!r} is not 1 to 100 letters, digits, '.', '_' and '-'")
    if not 1 <= manifest.release <= MOST_RELEASE:
        raise _malformed(f"release {manifest.release} is not 1 to {MOST_RELEASE}")
    for key, value in (("created", manifest.created), ("not_after", manifest.not_after)):
        if value is not None:
            moment(value, key)
    for key, tensors in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        _hold_tensors(key, tensors)
    if len(manifest.pipeline.input) > MOST_STEPS or len(manifest.pipeline.output) > MOST_STEPS:
        raise _malformed(f"the pipeline has more than {MOST_STEPS} steps")


def moment(text: str, key: str) -> datetime:
    """A date of the manifest, naive and in UTC. Raises :class:`BundleError` ``malformed``."""
    try:
        found = datetime.strptime(text, DATE)
    except ValueError:
        found = None
    if found is None or found.strftime(DATE) != text:  # strptime takes 2026-1-1 too
        raise _malformed(f"{key} {text!r} is not of the form 2026-01-31T12:00:00Z")
    return found


def _hold_tensors(key: str, tensors: Tuple[Tensor, ...]) -> None:
    names = [tensor.name for tensor in tensors]
    if not 1 <= len(names) <= MOST_TENSORS or len(set(names)) < len(names):
        raise _malformed(f"{key}: 1 to {MOST_TENSORS} of different names are read")
    for tensor in tensors:
        known = [size for size in tensor.shape if size is not None]
        if tensor.dtype not in _DTYPES:
            raise _malformed(f"{key}: dtype {tensor.dtype!r} of {tensor.name!r} is none of {', '.join(_DTYPES)}")
        if len(tensor.shape) > MOST_DIMENSIONS or any(size < 1 for size in known) or math.prod(known) > MOST_ELEMENTS:
            raise _malformed(f"{key}: shape {list(tensor.shape)} of {tensor.name!r} is empty or too large")


def _hold_files(manifest: Manifest) -> None:
    if not 1 <= len(manifest.files) <= MOST_FILES:
        raise _malformed(f"files: {len(manifest.files)} are listed, and 1 to {MOST_FILES} are read")
    for name, entry in manifest.files.items():
        if name in (MANIFEST, SIGNATURE):
            raise _malformed(f"files: {name} cannot be listed")
        check_name(name)
        if not _SHA256.fullmatch(entry.sha256):
            raise _malformed(f"files: {entry.sha256[:80]!r} of {name!r} is no SHA-256")
        if not 0 <= entry.size <= MOST_FILE_BYTES:
            raise _malformed(f"files: size {entry.size} of {name!r} is not 0 to {MOST_FILE_BYTES} bytes")


def _hold_artifact(manifest: Manifest) -> None:
    artifact = manifest.artifact
    if not artifact.files or len(set(artifact.files)) < len(artifact.files):
        raise _malformed("artifact: it needs files, each once")
    if artifact.session.entry not in artifact.files:
        raise _malformed(f"artifact: entry {artifact.session.entry!r} is none of its files")
    if not 1 <= artifact.session.threads <= MOST_THREADS:
        raise _malformed(f"artifact: threads {artifact.session.threads} is not 1 to {MOST_THREADS}")
    listed = {f"{ARTIFACT_FOLDER}/{name}" for name in artifact.files}
    found = {name for name in manifest.files if name.startswith(f"{ARTIFACT_FOLDER}/")}
    if listed != found:
        raise _malformed(f"artifact: its files and those of {ARTIFACT_FOLDER}/ differ in {sorted(listed ^ found)[0]!r}")
    ours = {tensor.name for tensor in manifest.inputs}, {tensor.name for tensor in manifest.outputs}
    for taken, after in artifact.session.states.items():
        if taken not in ours[0] or after not in ours[1]:
            raise _malformed(f"artifact: state {taken!r} from {after!r} is no input and output")


def _hold_golden(manifest: Manifest) -> None:
    """Each case gives every input and every output that is no state, and a tolerance stands for each such output."""
    states = manifest.artifact.session.states
    inputs = {tensor.name for tensor in manifest.inputs}
    outputs = {tensor.name for tensor in manifest.outputs} - set(states.values())
    golden = manifest.golden
    ids = [case.id for case in golden.cases]
    if not 1 <= len(ids) <= MOST_CASES or len(set(ids)) < len(ids):
        raise _malformed(f"golden: 1 to {MOST_CASES} cases of different ids are read")
    if set(golden.tolerance) != outputs:
        raise _malformed("golden: tolerance names other outputs than the artifact has")
    for case in golden.cases:
        if set(case.inputs) != inputs or set(case.outputs) != outputs:
            raise _malformed(f"golden: case {case.id!r} has other inputs or outputs than the artifact")
        for name in (*case.inputs.values(), *case.outputs.values(), case.frame, case.result):
            if name is not None and name not in manifest.files:
                raise _malformed(f"golden: {name!r} of case {case.id!r} is not in files")
    limits = [value for item in golden.tolerance.values() for value in (item.relative_l2, item.max_abs)]
    limits.append(golden.result_tolerance.share_differing if golden.result_tolerance else None)
    if any(value is not None and value < 0 for value in limits):
        raise _malformed("golden: a tolerance is below 0")
    steps = manifest.pipeline
    for case in golden.cases:
        for key, name, there in (("frame", case.frame, steps.input), ("result", case.result, steps.output)):
            if (name is not None) != bool(there):
                raise _malformed(f"golden: case {case.id!r} has a {key} exactly where the pipeline has steps for it")
    if (golden.result_tolerance is not None) != bool(steps.output):
        raise _malformed("golden: result_tolerance stands exactly where the pipeline has steps for the output")
