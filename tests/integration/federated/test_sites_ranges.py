"""Ranges of all sites by the sites' own door: histograms leave it under masks, as the site files allow, and the candidates
are built with the ranges of the sum. The wire is read."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sites_kit
import torch
from benchmarks.clinic_kit import sites_task

from edgedeploy.boards.emulated.board import kept_port
from edgedeploy.errors import SpecError, Unreachable
from edgedeploy.federated.connection import mailbox_of
from edgedeploy.federated.coordinator import RANGES, Coordinator
from edgedeploy.federated.histograms import merged, read_histograms
from edgedeploy.federated.merging import read_site_ranges
from edgedeploy.federated.release import Release
from edgedeploy.federated.served import serving_of
from edgedeploy.federated.site import Site
from edgedeploy.federated.specs import load_site, load_sites

pytestmark = [pytest.mark.beside, pytest.mark.timeout(1800)]
pytest.importorskip("flwr")

TONES = {"north": 0.2, "east": 0.4, "south": 0.65}
CASES = {"calibration": 4, "selection": 5, "confirmation": 5}
"""Of fewer than five a site says no number, where it shares sums alone."""

CANDIDATES: tuple[dict[str, str | int], ...] = ({"target": "onnxruntime", "precision": "int8", "weight_bits": 7},)
ALLOWED = "\n[leaves]\nhistograms = true\nmost_bytes = 4_000_000\n"


def coordinator(path: Path, out: Path) -> Coordinator:
    return Coordinator(*load_sites(path), out, lambda line: None)


def site(path: Path) -> Site:
    spec, source = load_site(path)
    return Site(spec, source, mailbox_of(spec, source), lambda line: None)


def written(folder: Path, wire_port: int, port: int, allowed: Callable[[str], str]) -> tuple[dict[str, Path], Path]:
    """Files of three sites that connect, and the coordinator's. The network is not trained: nothing asks how good it is."""
    torch.manual_seed(0)
    torch.save(sites_task.network().state_dict(), folder / "global.pt")
    paths = {}
    for number, (name, tone) in enumerate(TONES.items()):
        way = f'coordinator = "http://127.0.0.1:{wire_port}"\ntoken_file = "token"'
        paths[name] = sites_kit.write_site(folder / name, tone, number, dark=False, way=way, cases=CASES)
        paths[name].write_text(paths[name].read_text() + allowed(name))
        sites_kit.write_tokens(folder, name)
    extra = f'listen = "127.0.0.1:{port}"\nranges = "sites"'
    return paths, sites_kit.write_sites(folder, list(paths), extra, CANDIDATES, margin=0.2)


def answered(asking: Coordinator, paths: dict[str, Path]) -> Any:
    """What the coordinator ends with, while the sites connect when they have time to: each time another process would."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(asking.run(resume=False, once=False, serving=serving_of(asking), poll_s=0.05))
        except Exception as exc:
            found.append(exc)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    give_up_s = time.monotonic() + 1500
    while thread.is_alive() and time.monotonic() < give_up_s:
        for path in paths.values():
            with suppress(Unreachable):
                site(path).serve(once=True)
        thread.join(0.05)
    return found[0]


def test_histograms_leave_under_masks_and_candidates_have_the_ranges_of_all_sites(tmp_path: Path) -> None:
    with kept_port() as port, sites_kit.recorded(port) as wire:
        paths, listed = written(tmp_path, wire.port, port, lambda name: ALLOWED)
        asking = coordinator(listed, tmp_path / "out")
        with pytest.raises(SpecError, match="--once"):
            asking.run(resume=False, once=True)
        release = answered(asking, paths)
    assert isinstance(release, Release), release
    cells = [state.measured.cells[0] for state in asking.states() if state.measured is not None]
    assert len(cells) == 3 and all(cell.accuracy is not None for cell in cells), "each was built and measured"
    # -- the sum is that of the sites' histograms, which lie at the sites alone
    each = {name: read_histograms(next((site(path).work / "sums").glob("*.npz"))) for name, path in paths.items()}
    pooled, found = merged(list(each.values())), read_site_ranges(tmp_path / "out" / RANGES)
    assert (found.sites, found.cases) == (3, 12)
    for (low, high), (most, least) in zip(found.ranges, pooled.extremes, strict=True):
        assert most * (1 - 1e-6) <= high <= max(most * 2 ** (1 / 1024) * (1 + 1e-6), 2.0**-14)
        assert least * (1 - 1e-6) <= -low <= max(least * 2 ** (1 / 1024) * (1 + 1e-6), 2.0**-14)
    # -- every site's int8 has them, and not its own
    first = {name: scale_of_input(site(path).work) for name, path in paths.items()}
    low, high = found.ranges[0]
    assert all(scale == pytest.approx((high - low) / 255, rel=1e-5) for scale in first.values())
    assert each["north"].ranges()["t00000"][1] < 0.9 * high
    # -- the wire: masked parts, no plane of a site and no image
    up = bytes(wire.up)
    parts = masked_parts(asking)
    assert sorted(parts) == sorted(TONES)
    for name, arrays in parts.items():
        one = each[name]
        text = base64.b64encode(np.rint(one.presence.astype(float)).astype("<u4").tobytes()[:3000])
        assert text not in up
        assert all(looks_random(array) for array in arrays if array.size > 1000), "under masks all values are alike"
        assert not looks_random(one.presence.astype(np.int64)), "which is told apart from what is not masked"
        assert sites_kit.shared_windows(up, tmp_path / name / "images") == set()
    # -- what left is logged, as any other answer
    for name, path in paths.items():
        left = [line for line in site(path).door.left() if not line["again"]]  # a connection may break off
        assert [line["kind"] for line in left] == ["summed"] * 9 + ["measured"]
        assert "sum.masked.values x 5" in left[3]["fields"]
        received = [json.loads(line) for line in (tmp_path / "out" / "received.jsonl").read_text().splitlines()]
        assert {line["sha256"] for line in left} == {line["sha256"] for line in received if line["site"] == name}
        assert not (site(path).work / "sums" / "context.bin").exists(), "the secrets of a sum end with it"
        assert (site(path).work / "sums").stat().st_mode & 0o077 == 0


def scale_of_input(work: Path) -> float:
    """Of the first activation that is quantized in the site's int8 file."""
    for path in work.glob("releases/*/study/artifacts/*/model.onnx"):
        graph = onnx.load(str(path)).graph
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] == graph.input[0].name:
                return float(constants[node.input[1]])
    raise AssertionError(f"no int8 file in {work}")


def masked_parts(asking: Coordinator) -> dict[str, list[Any]]:
    """The arrays of the first sum, as they came in, by site."""
    found = {}
    for entry in asking.spec.site:
        spool = asking.spool(entry)
        for number in spool.answered():
            said = json.loads(spool.answer_bytes(number, 1 << 24)).get("sum")
            if said and said["stage"] == "collect_masked_vectors" and entry.name not in found:
                values = [np.frombuffer(base64.b64decode(one["values"]), "<u4") for one in said["masked"]]
                found[entry.name] = values
    return found


def looks_random(array: Any) -> bool:
    """Whether the values fill 2^32 evenly in their upper four bits (chi-squared with 15 degrees, far in the tail)."""
    counts = np.bincount((array.reshape(-1).astype(np.uint64) >> np.uint64(28)).astype(int), minlength=16)
    expected = array.size / 16
    return bool(((counts - expected) ** 2 / expected).sum() < 60)


def test_off_is_what_a_site_file_says_that_says_nothing(tmp_path: Path) -> None:
    paths, _ = written(tmp_path, 1, 1, lambda name: "")
    found = site(paths["east"])
    assert not found.sums.allowed
    assert found.sums.least == 3
