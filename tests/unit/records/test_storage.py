"""How weights are shipped, as a part of a variant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgedeploy.records.canonical import canonical
from edgedeploy.records.storage import storage_of
from edgedeploy.records.variant import Variant

ARCH = {"kernel": 3}
TARGETS = {"onnxruntime": ("float32", "int8")}


def variant(**params: str | float) -> Variant:
    given = {"target": "onnxruntime", **params}
    return canonical(given, arch_defaults=ARCH, target_precisions=TARGETS, default_threads=1)


def test_weights_as_they_are_leave_digests_as_they_were() -> None:
    assert variant(storage="none") == variant()
    assert "storage" not in variant().as_json()
    packed = variant(storage="uniform:12x")
    assert packed.digest != variant().digest
    assert packed.model_digest != variant().model_digest
    assert Variant.from_json(packed.as_json()) == packed
    assert replace(packed, storage="") == variant()


def test_equal_ways_are_one() -> None:
    assert variant(storage="uniform:12x") == variant(storage="uniform:12.0x")
    assert variant(storage="uniform:0.30").storage == "uniform:0.3"
    assert storage_of("uniform:12x").method == "ratio"
    assert storage_of("uniform:12").method == "uniform"


@pytest.mark.parametrize("text", ["zip", "uniform:", "uniform:x", "hyper:0", "uniform:nan", "uniform:1e9", "hyper:3x"])
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"uniform|hyper"):
        storage_of(text)
