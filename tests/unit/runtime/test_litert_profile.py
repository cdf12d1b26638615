"""What is made of LiteRT's profile, without LiteRT: events out of words, and layers out of events."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sessions.litert import profile
from edgedeploy.runtime.sessions.litert.partitions import layers
from edgedeploy.runtime.sessions.litert.profile import BUILT_IN, DELEGATED, OperatorEvent, read_events

TAGS = {1 << 20: "Invoke", 2 << 20: "Convolution (NHWC, F32) IGEMM", 3 << 20: "SOFTMAX"}
JUNK = 0x7F9B << 32
"""What lies in the unused half of a word."""


def words(memory: int, *rows: tuple[int, int, int, int]) -> list[int]:
    """Rows of (tag, kind, microseconds, index), with ``memory`` words in each record of memory."""
    filled = []
    for tag, kind, us, index in rows:
        filled += [tag, kind | JUNK, 50071981224, us, *[0x67C000] * (2 * memory), index, 0, JUNK]
    return filled + [0] * 100


EVENTS = ((1 << 20, 1, 250, 0), (2 << 20, DELEGATED, 200, 0), (2 << 20, 0x20, 1 << 32, 0), (3 << 20, BUILT_IN, 40, 7))


@pytest.mark.parametrize("memory", [2, 3, 4])
def test_operators_are_read_whatever_the_release_keeps_of_memory(memory: int) -> None:
    found = read_events(words(memory, *EVENTS), len(EVENTS), TAGS.__getitem__)
    assert found == [
        OperatorEvent("Convolution (NHWC, F32) IGEMM", DELEGATED, 0, 200_000),
        OperatorEvent("SOFTMAX", BUILT_IN, 7, 40_000),
    ]


def test_a_layout_that_nobody_knows_is_refused() -> None:
    for strange in (words(5, *EVENTS), words(3, (0, DELEGATED, 200, 0)), words(3, (2 << 20, DELEGATED, 1 << 40, 0))):
        with pytest.raises(RuntimeFault, match="layout that is not known"):
            read_events(strange, 1 if strange[0] == 0 or strange[3] > 1 << 39 else len(EVENTS), TAGS.__getitem__)
    with pytest.raises(RuntimeFault, match="layout that is not known"):
        read_events([], 0, TAGS.__getitem__)


def node(index: int, operator: str, inputs: list[int], *outputs: int) -> dict[str, Any]:
    return {"index": index, "op_name": operator, "inputs": inputs, "outputs": list(outputs)}


# image 0 -> conv -> depthwise -> softmax -> conv -> 5; the delegate has the first two and the last
NODES = [
    node(0, "CONV_2D", [0, 10], 1),
    node(1, "DEPTHWISE_CONV_2D", [1, 11], 2),
    node(2, "SOFTMAX", [2], 3),
    node(3, "CONV_2D", [3, 12], 4),
    node(4, "RESHAPE", [4, 13], 5),
    node(5, "DELEGATE", [0, 10, 11], 2),
    node(6, "DELEGATE", [3, 12, 13], 5),
]
RAN = [
    OperatorEvent("Convolution (NHWC, QC8) IGEMM", DELEGATED, 0, 5000),
    OperatorEvent("Copy (NC, X8)", DELEGATED, 1, 100),
    OperatorEvent("Convolution (NHWC, QC8) DWConv", DELEGATED, 2, 3000),
    OperatorEvent("SOFTMAX", BUILT_IN, 2, 700),
    OperatorEvent("Fully Connected (NC, QS8, QC8W) GEMM", DELEGATED, 0, 900),
    OperatorEvent("Static Reshape (NC)", DELEGATED, 1, 0),
]
NAMES = ["/first", "/second", "/third"]


def sources(events: list[OperatorEvent], names: list[str] = NAMES) -> list[list[str]]:
    return [row["sources"] for row in layers(events, NODES, names)]


def test_layers_are_named_partition_by_partition() -> None:
    rows = layers(RAN, NODES, NAMES)
    assert [row["sources"] for row in rows] == [["/first"], [], ["/second"], [], ["/third"], []]
    assert [row["device"] for row in rows] == ["CPU, XNNPACK"] * 3 + ["CPU, built-in"] + ["CPU, XNNPACK"] * 2
    assert rows[4]["operator"] == "Fully Connected" and rows[4]["kernel"] == "Fully Connected (NC, QS8, QC8W) GEMM"
    assert [row["ns"] for row in rows] == [event.ns for event in RAN]


def test_what_does_not_agree_gets_no_name() -> None:
    swapped = [RAN[0], RAN[1], OperatorEvent("Deconvolution (NC)", DELEGATED, 2, 3000), *RAN[3:]]
    assert sources(swapped) == [[], [], [], [], ["/third"], []], "another kind: that partition has no names"
    assert sources([RAN[0], *RAN[3:]]) == [[], [], ["/third"], []], "one is missing: that partition has no names"
    assert sources(RAN[:4]) == [[]] * 4, "another number of partitions: none has"
    assert sources(RAN, NAMES[:2]) == [[]] * 6, "the file has other layers than those that were named"
    assert sources(RAN, ["/first", "", "/third"])[2] == [], "a product of two activations has no name"


def test_a_built_in_layer_is_told_by_its_index() -> None:
    alone = [OperatorEvent("CONV_2D", BUILT_IN, 0, 1000), OperatorEvent("CONV_2D", BUILT_IN, 2, 1000)]
    assert sources(alone) == [["/first"], []]


@pytest.mark.parametrize(
    ("version", "told"), [(None, "this runtime tells no times"), ("2.1.6", "2.1.6 tells no times")]
)
def test_older_runtimes_say_that_they_do_not_tell(
    version: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = None if version is None else importlib.util.spec_from_file_location("ai_edge_litert", tmp_path / "x.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(RuntimeFault, match=told):
        profile.profile(tmp_path / "model.tflite", 1, [], {})
