"""Secure sums as requests and answers of sites: what is asked, what leaves, and what a site refuses whoever asks."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federated_said import ASKED, SAID

from edgedeploy.errors import DataError, EdgeDeployError, SpecError, TargetUnavailable
from edgedeploy.federated.histograms import BINS, LOWEST, PER_OCTAVE, Histograms, merged
from edgedeploy.federated.leaving import Bounds, Door
from edgedeploy.federated.merging import SiteRanges, SpoolGrid, merge, read_site_ranges
from edgedeploy.federated.messages import Answer, Request, read_message
from edgedeploy.federated.secure_sum import NoAggregate
from edgedeploy.federated.sum_messages import Keys, Masked, Parameters, SumAsked, SumSaid, answer_of
from edgedeploy.federated.summing import CONTEXT, HistogramsStay, SiteSums, named_ranges, network_digest

NAMES = {1: "north", 2: "east", 3: "south"}
NETWORK, RELEASE = "a" * 64, "3" * 16
TENSORS = ("image", "/conv/out", "logits")


def observed(site: int) -> Histograms:
    """Values at each site's own magnitudes; those of the third reach furthest."""
    rng = np.random.default_rng(site)
    counts = np.zeros((len(TENSORS), 2, BINS), np.int64)
    extremes = np.zeros((len(TENSORS), 2))
    for tensor in range(len(TENSORS)):
        for side in (0, 1):
            bins = rng.integers(150 + 40 * site, 190 + 40 * site, 5)
            counts[tensor, side, bins] = rng.integers(1, 1000, 5)
            extremes[tensor, side] = 2 ** (LOWEST + (bins.max() - 0.4) / PER_OCTAVE)
    return Histograms(TENSORS, counts, extremes, 4, "of the site's own export")


@dataclass
class Wire:
    """Sites that are begun anew for every request, as by ``--once``, and the bytes that went to and fro."""

    folder: Path
    allowed: Callable[[int], bool] = lambda node: True
    least: int = 3
    sites: Mapping[int, Histograms] = field(default_factory=lambda: {node: observed(node) for node in NAMES})
    down: list[SumAsked] = field(default_factory=list)
    up: dict[int, list[bytes]] = field(default_factory=dict)
    told: list[tuple[int, SumSaid | str]] = field(default_factory=list)

    def ask(self, node: int, question: SumAsked) -> int:
        data = Request(**{**ASKED, "kind": "sum", "sum": question}).as_bytes()
        asked = read_message(Request, data, "a request", 1 << 16).sum
        assert asked is not None
        self.down.append(asked)
        try:
            said = self.site(node).answer(asked, RELEASE, NETWORK, lambda: self.sites[node])
        except EdgeDeployError as exc:
            self.told.append((node, type(exc).__name__))
            return len(self.told)
        answer = Answer(**{**SAID, "kind": "summed", "sum": said, "baseline": None, "cells": ()})
        sent = Door(self.folder / str(node), Bounds(histograms=True)).passed(answer)
        self.up.setdefault(node, []).append(sent)
        read = read_message(Answer, sent, "an answer", 1 << 20).sum
        assert read is not None
        self.told.append((node, read))
        return len(self.told)

    def site(self, node: int) -> SiteSums:
        return SiteSums(self.folder / str(node) / "sums", self.allowed(node), self.least)

    def merge(self) -> SiteRanges:
        grid = SpoolGrid(NAMES, self.ask, lambda node, number: self.told[number - 1][1], 0.001)
        return merge(grid, NAMES, 5.0)


def test_ranges_of_all_sites_come_from_parts_that_leave_under_masks(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    found = wire.merge()
    pooled = merged(list(wire.sites.values()))
    assert (found.sites, found.cases, found.network) == (3, 12, network_digest(NETWORK, TENSORS))
    for (low, high), (most, least) in zip(found.ranges, pooled.extremes, strict=True):
        assert most * (1 - 1e-6) <= high <= most * 2 ** (1 / 1024) * (1 + 1e-6)
        assert least * (1 - 1e-6) <= -low <= least * 2 ** (1 / 1024) * (1 + 1e-6)
    for node, sent in wire.up.items():
        assert len(sent) == 1 + 2 * 4
        for data in sent:
            said = json.loads(data)["sum"]
            assert not any(name.encode() in data for name in TENSORS), "the names of tensors stay"
            for part in said["masked"]:
                values = np.frombuffer(base64.b64decode(part["values"]), "<u4")
                if values.size > 1000:  # of values that are nearly all zero
                    assert len(np.unique(values)) > 0.99 * values.size
        assert not (tmp_path / str(node) / "sums" / CONTEXT).exists(), "the secrets of a sum end with it"
        assert (tmp_path / str(node) / "sums").stat().st_mode & 0o077 == 0
        left = Door(tmp_path / str(node), Bounds()).left()
        assert [line["bytes"] for line in left] == [len(data) for data in sent]
    found.write(tmp_path / "ranges.json")
    assert read_site_ranges(tmp_path / "ranges.json") == found
    assert named_ranges(found, TENSORS, NETWORK)["/conv/out"] == found.ranges[1]
    with pytest.raises(DataError, match="another network"):
        named_ranges(found, ("image", "other", "logits"), NETWORK)


def test_a_site_lets_no_histograms_leave_unless_its_file_says_so(tmp_path: Path) -> None:
    wire = Wire(tmp_path, allowed=lambda node: node != 2)
    with pytest.raises(NoAggregate, match=r"east: it lets no histograms leave \(\[leaves\] histograms\)"):
        wire.merge()
    assert 2 not in wire.up and not (tmp_path / "2").exists()
    part = SumSaid(stage="setup", pk1="AA==", pk2="AA==")
    answer = Answer(**{**SAID, "kind": "summed", "sum": part})
    with pytest.raises(SpecError, match="none may leave"):
        Door(tmp_path / "off", Bounds()).passed(answer)
    assert not (tmp_path / "off" / "left.jsonl").exists()


def test_sites_of_two_networks_have_no_sum(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    other = observed(3)
    wire.sites = {**wire.sites, 3: Histograms(("a", "b", "c"), other.counts, other.extremes, 4, "m")}
    with pytest.raises(DataError, match="south 3 tensors of"):
        wire.merge()


def test_a_site_that_fails_in_a_stage_is_an_error_and_no_sum(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    inner = wire.site

    def failing(node: int) -> SiteSums:
        if node == 3 and wire.down[-1].stage == "unmask":
            (tmp_path / "3" / "sums" / CONTEXT).unlink()  # its disk lost the secrets
        return inner(node)

    wire.site = failing  # type: ignore[method-assign]
    with pytest.raises(NoAggregate):
        wire.merge()


PARAMETERS: dict[str, Any] = {
    **{"sample_num": 3, "share_num": 3, "threshold": 3, "clipping_range": 1.0},
    **{"target_range": 1 << 30, "mod_range": 1 << 32, "max_weight": 1.0},
}
KEYS = tuple(Keys(node=node, pk1="AA==", pk2="AA==") for node in (1, 2))


@pytest.mark.parametrize(
    ("stage", "more", "error", "said"),
    [
        ("setup", {"sample_num": 2, "share_num": 2, "threshold": 2}, HistogramsStay, "a sum of 2 sites"),
        ("setup", {"threshold": 2}, DataError, "2 of 3 shares would open"),
        ("setup", {"mod_range": 1 << 16}, DataError, "modulus"),
        ("setup", {"clipping_range": 2.0}, DataError, "clip"),
        ("setup", {"target_range": 1 << 31}, DataError, "pass the modulus"),
        ("share_keys", {"keys": KEYS}, HistogramsStay, "a sum of 2 sites"),
        ("collect_masked_vectors", {"sources": (2, 2), "ciphertexts": ("AA==", "AA==")}, HistogramsStay, "a sum of"),
        ("unmask", {"active": (1, 2), "dead": (3,)}, HistogramsStay, "a sum of 2 sites"),
        ("unmask", {"active": (1, 2, 3), "dead": (2,)}, DataError, "both shares together"),
        ("unmask", {"active": (1, 2, 3)}, DataError, "Begin the sum anew"),
        ("setup", None, DataError, "no parameters"),
    ],
)
def test_what_would_open_one_sites_values_is_refused_whoever_asks(
    tmp_path: Path, stage: Any, more: dict[str, Any] | None, error: type[Exception], said: str
) -> None:
    if stage == "setup":
        more = {} if more is None else {"parameters": Parameters(**{**PARAMETERS, **more})}
    asked = SumAsked(stage=stage, node=1, **(more or {}))
    with pytest.raises(error, match=said):
        Wire(tmp_path).site(1).answer(asked, RELEASE, NETWORK, lambda: observed(1))
    assert not (tmp_path / "1" / "sums" / CONTEXT).exists()


def test_an_answer_whose_arrays_do_not_fill_their_shapes_is_told() -> None:
    part = Masked(shape=(3,), values="AAAAAA==")
    with pytest.raises(DataError, match="1 values of shape"):
        answer_of(SumSaid(stage="collect_masked_vectors", masked=(part,)))


def test_without_flower_a_sum_is_told_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    asked = SumAsked(stage="begin", node=1)
    with pytest.raises(TargetUnavailable, match="flwr is not installed"):
        Wire(tmp_path).site(1).answer(asked, RELEASE, NETWORK, lambda: observed(1))
    assert not (tmp_path / "1").exists()
