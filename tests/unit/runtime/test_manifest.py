"""The manifest of a bundle: what is read, and what is refused, by name."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from edgedeploy.runtime.bundle.manifest import MOST_MANIFEST_BYTES, Manifest, parse
from edgedeploy.runtime.faults import BundleError

DIGEST = "ab" * 32
GOLDEN = [f"golden/c{index}.{kind}.npy" for index in range(3) for kind in ("frame", "image", "logits", "result")]


def manifest() -> dict[str, Any]:
    names = ["artifact/model.onnx", "model/reference.onnx", *GOLDEN]
    return {
        "format": "edgedeploy-bundle",
        "version": 1,
        "name": "thyroid",
        "release": 3,
        "created": "2026-01-31T12:00:00Z",
        "not_after": None,
        "target": "onnxruntime",
        "artifact": {
            "kind": "files",
            "files": ["model.onnx"],
            "session": {"entry": "model.onnx", "settings": {"a.b": "1"}, "threads": 2, "states": {}},
        },
        "inputs": [{"name": "image", "dtype": "float32", "shape": [None, 1, 64, 64]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [1, 3, 64, 64]}],
        "pipeline": {"input": [{"step": "grey"}], "output": [{"step": "argmax"}]},
        "compatibility": {
            "runtime": {"package": "onnxruntime", "at_least": "1.20", "below": None, "measured_with": "1.22.1"},
            "machine": "x86_64",
            "cpu_flags": ["avx2"],
            "gpu": None,
            "driver": None,
        },
        "golden": {
            "cases": [
                {
                    "id": f"c{index}",
                    "frame": f"golden/c{index}.frame.npy",
                    "inputs": {"image": f"golden/c{index}.image.npy"},
                    "outputs": {"logits": f"golden/c{index}.logits.npy"},
                    "result": f"golden/c{index}.result.npy",
                }
                for index in range(3)
            ],
            "tolerance": {"logits": {"relative_l2": 1e-3, "max_abs": None}},
            "result_tolerance": {"share_differing": 0.001},
        },
        "files": {name: {"sha256": DIGEST, "size": 10} for name in names},
    }


def read(data: Any) -> Manifest:
    return parse(json.dumps(data).encode())


def test_a_manifest_is_read_and_written_again_as_it_was() -> None:
    found = read(manifest())
    assert found.as_json() == manifest()
    assert found.text() == parse(found.text()).text()
    assert found.inputs[0].shape == (None, 1, 64, 64) and found.golden.cases[2].id == "c2"


def put(path: str, value: Any) -> Any:
    """The manifest with another value at ``a.b.0``; one more key where it is new, one less where it is ``...``."""
    data = copy.deepcopy(manifest())
    place: Any = data
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


REFUSED = [
    ("surprise", 1, "'surprise' is unknown"),
    ("golden/cases/0/note", "x", "'note' is unknown"),
    ("release", ..., "'release' is missing"),
    ("release", 0, "release 0"),
    ("release", True, "release: expected int"),
    ("release", 2**60, "release"),
    ("version", 2, "version 2, and this runtime reads version 1"),
    ("version", True, "version True"),
    ("format", "zip", "no edgedeploy-bundle"),
    ("name", "../x", "name '../x'"),
    ("created", "2026-1-1T00:00:00Z", "created"),
    ("not_after", "tomorrow", "not_after"),
    ("target", "tflite", "target: expected one of"),
    ("artifact/files", ["other.onnx"], "entry 'model.onnx'"),
    ("artifact/files", ["model.onnx", "more.bin"], "differ in 'artifact/more.bin'"),
    ("artifact/session/threads", 0, "threads 0"),
    ("artifact/session/states", {"image": "nothing"}, "state 'image'"),
    ("inputs", [], "inputs: 1 to"),
    ("inputs/0/dtype", "object", "dtype 'object'"),
    ("inputs/0/shape", [1, 0], "is empty or too large"),
    ("inputs/0/shape", [2**16, 2**16], "is empty or too large"),
    ("pipeline/input", [{"step": "grey"}] * 33, "more than 32 steps"),
    ("golden/cases", [], "golden: 1 to 64 cases"),
    ("golden/cases/1/id", "c0", "golden: 1 to 64 cases"),
    ("golden/cases/1/outputs", {}, "case 'c1' has other inputs or outputs"),
    ("golden/cases/1/result", None, "case 'c1' has a result"),
    ("golden/cases/1/result", "golden/elsewhere.npy", "is not in files"),
    ("golden/tolerance", {}, "tolerance names other outputs"),
    ("golden/tolerance/logits/relative_l2", -1.0, "below 0"),
    ("golden/result_tolerance", None, "result_tolerance stands"),
    ("files/bundle.json", {"sha256": DIGEST, "size": 1}, "bundle.json cannot be listed"),
    ("files/.git~x", {"sha256": DIGEST, "size": 1}, ".git"),
    ("files/extra", {"sha256": "AB" * 32, "size": 1}, "is no SHA-256"),
    ("files/extra", {"sha256": DIGEST, "size": -1}, "size -1"),
    ("compatibility/gpu", "x" * 501, "longer than 500"),
    ("compatibility/gpu", "\ud800", "cannot be shown"),
]


@pytest.mark.parametrize(("path", "value", "said"), REFUSED)
def test_what_is_out_of_form_is_refused_by_its_name(path: str, value: Any, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        read(put(path, value))
    assert caught.value.reason == "malformed" and said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b"\xff{}", "codec"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"format": 1, "format": 2}', "'format' stands twice"),
        (b'{"format": NaN}', "NaN"),
        (b'{"format": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b" " * (MOST_MANIFEST_BYTES + 1), "at most"),
        (b"[]", "no edgedeploy-bundle"),
    ],
)
def test_bytes_that_are_no_manifest_are_refused(text: bytes, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(text)
    assert caught.value.reason == "malformed" and said in caught.value.message


def test_damaged_bytes_are_a_manifest_or_refused() -> None:
    good = read(manifest()).text()
    draw = random.Random(0)
    refused = 0
    for _ in range(1000):
        text = bytearray(good)
        for _ in range(draw.randint(1, 3)):
            text[draw.randrange(len(text))] = draw.randrange(256)
        try:
            parse(bytes(text))
        except BundleError as exc:
            assert exc.reason == "malformed"
            refused += 1
    assert refused > 500
