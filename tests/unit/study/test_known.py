"""What a run remembers of its folder is what the files say; the best so far is the front's pick; outputs are pruned."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import made_up
import made_up_report
import made_up_study
import numpy as np
import pytest

from edgedeploy.evidence.front import build_front
from edgedeploy.files import write_arrays, write_json
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.search.outcomes import Failed, Scored
from edgedeploy.study.best import KEPT_CANDIDATES, Best, outcome_text
from edgedeploy.study.front import read_front, stored_spec
from edgedeploy.study.known import Known
from edgedeploy.study.outputs import prune_outputs
from edgedeploy.study.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = made_up_study.new_store(tmp_path / "study", made_up_report.BASELINES)
    for item in made_up_report.measurements():
        found.keep(item)
    for failure in made_up_report.failures():
        found.keep_failure(failure)
    return found


def test_a_file_is_read_once_and_again_when_it_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Store.measurement
    monkeypatch.setattr(Store, "measurement", lambda self, digest: read.append(digest) or real(self, digest))
    known = Known(store)
    assert known.variants() == store.variants()
    assert len(read) == len(set(read)) == len(store.measurements())
    known.measurements()
    assert len(read) == len(set(read)), "nothing is read a second time"

    first, second, *_ = store.measurements()
    write_json(store.root / "measurements" / f"{first.digest}.json", {**first.as_json(), "notes": ["by hand"]})
    (store.root / "measurements" / f"{second.digest}.json").unlink()
    changed = known.measurement(first.digest)
    assert changed is not None and changed.notes == ("by hand",)
    assert known.measurement(second.digest) is None
    assert [item.digest for item in known.measurements()] == [item.digest for item in store.measurements()]
    assert known.variants() == store.variants()


def test_numbers_are_remembered_and_series_are_not(store: Store) -> None:
    kept = {item.digest: item for item in store.measurements()}
    for item in Known(store).measurements():
        whole = kept[item.digest]
        assert (item.metrics, item.cases, item.board, item.valid) == (whole.metrics, whole.cases, whole.board, True)
        assert item.candidate.blocks_ns == () and item.baseline is None


@pytest.mark.parametrize("order", range(4))
def test_the_best_so_far_is_the_pick_of_the_front_whatever_came_first(store: Store, order: int) -> None:
    items = made_up_report.measurements()
    random.Random(order).shuffle(items)
    best = Best(store.study(), stored_spec(store), ())
    assert best.text() is None
    for item in items:
        best.add(item)
    front = read_front(store.root, resamples=200)
    row = front.row(front.pick.digest) if front.pick else None
    assert row is not None
    assert (best.text() or "").startswith(f"{row.variant.label} (dice_mean ")
    members = {row.digest for row in front.members} | {item.digest for item in made_up_report.BASELINES}
    assert best.shown == members | set(front.decision.order[:KEPT_CANDIDATES]) > members


def test_outputs_are_kept_for_the_front_and_the_baselines(store: Store) -> None:
    for item in store.measurements():
        for split in ("selection", "confirmation"):
            write_arrays(store.outputs_path(item.digest, split), {"logits": np.zeros((4, 2), np.float16)})
    under_way = made_up.variant(width=0.3).digest
    write_arrays(store.outputs_path(under_way, "selection"), {"logits": np.zeros((4, 2), np.float16)})
    best = Best(store.study(), stored_spec(store), store.measurements())
    assert prune_outputs(store, best.shown, best.taken) > 0
    left = {path.stem.rpartition("-")[0] for path in (store.root / "outputs").iterdir()}
    assert left == (best.shown & best.taken) | {under_way}, "another board may be at work on that one"
    prune_outputs(store, best.shown)
    assert not store.outputs_path(under_way, "selection").exists()
    assert prune_outputs(store, best.shown) == 0


def test_the_front_is_the_same_whichever_way_its_points_are_compared() -> None:
    """Against every pair, one by one: equals stay, ties in one objective do not protect."""
    items = made_up_report.measurements()[:-1]
    twin = dataclasses.replace(items[3], variant=made_up.variant("openvino", "int8", threads=4))
    items.append(twin)
    front = build_front(items, (made_up_report.DICE, made_up_report.RATIO), margin=0.01)
    wanted = {item.digest for item in items if not any(_beats(other, item) for other in items)}
    assert {row.digest for row in front.members} == wanted
    assert {twin.digest, items[3].digest} <= wanted


def _beats(ours: Measurement, theirs: Measurement) -> bool:
    gains = [
        goal.gain(ours.metrics[goal.metric], theirs.metrics[goal.metric])
        for goal in (made_up_report.DICE, made_up_report.RATIO)
    ]
    return min(gains) >= 0 and max(gains) > 0


def test_nothing_is_called_best_before_it_is_shown_fit(store: Store) -> None:
    """What comes nearest is named as that: its numbers may be far from the margin."""
    reference = made_up_report.BASELINES[0].digest
    items = made_up_report.measurements()
    best = Best(store.study(), stored_spec(store), [item for item in items if item.variant.digest == reference])
    assert (best.text() or "").startswith("none is shown fit to ship: no variant that meets the limits costs less")
    poor = made_up.measurement(made_up.variant(precision="int8"), dice=0.333, latency_ms=1.0, seed=3)
    best.add(poor)
    assert (best.text() or "").startswith(f"none is shown fit to ship yet; nearest: {poor.variant.label} (dice_mean ")
    for item in items:
        best.add(item)
    assert "none" not in (best.text() or "none")


def test_a_line_of_the_log_has_units() -> None:
    goals = ("image_bytes", "latency_p50_ns")
    units = {"image_bytes": "bytes", "latency_p50_ns": "ns"}
    table = {name: MetricInfo("minimize", unit, name) for name, unit in units.items()}
    found = Scored((16384.0, 870_000.0), {"latency latency_p99_ns at most 1 ms": 0.2, "other x": -1.0})
    told = outcome_text(found, goals, table)
    assert told == "image_bytes 16.4 KB, latency_p50_ns 870 \N{MICRO SIGN}s (misses latency_p99_ns at most 1 ms)"
    assert outcome_text(Failed("Unstable", "drift"), goals, table) == "no number: Unstable: drift"
