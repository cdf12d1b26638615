"""Layer times from the measurements of a study's baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest
from levels_task import ARCH, LeveledEdges
from made_up_study import new_store

from edgedeploy.compress.prune import channel_widths
from edgedeploy.errors import DataError, Unsupported
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.study.account import Account
from edgedeploy.study.layer_times import keep_times, kept_times
from edgedeploy.study.layout import LAYER_TIMES
from edgedeploy.study.modeller import Modeller
from edgedeploy.study.store import Store

ARCHITECTURE = tuple(sorted(ARCH.items()))
FIRST, SECOND = (Variant(target, "float32", 1.0, ARCHITECTURE, 1) for target in ("onnxruntime", "openvino"))
MODULES = {"first.0", "deep.0", "deeper", "up", "join", "classes"}


class Counting(LeveledEdges):
    """Counts the epochs of training."""

    def __init__(self) -> None:
        self.epochs = 0

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        self.epochs += 1
        return super().batches(seed, batch_size, **arch)


def by_time(width: float, digest: str) -> Variant:
    return replace(FIRST, width=width, allocation="time", layer_times=digest)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "out", [FIRST, SECOND])


def modeller(store: Store, task: LeveledEdges | None = None) -> Modeller:
    return Modeller(
        task or LeveledEdges(), {}, store, Account(store), lambda what, state: None, lambda kind, text: None
    )


def nodes(models: Modeller) -> dict[str, str]:
    """The nodes of the baseline's reference by the operator and its turn: ``Conv 0``."""
    import onnx

    found: dict[str, str] = {}
    for node in onnx.load(str(models.reference(FIRST).path)).graph.node:
        turn = sum(key.startswith(f"{node.op_type} ") for key in found)
        found[f"{node.op_type} {turn}"] = node.name
    return found


def measure(store: Store, variant: Variant, profile: Mapping[str, Any]) -> None:
    store.keep(replace(made_up.measurement(variant), layers={"candidate": dict(profile)}))


def profile(spent: Mapping[str | None, int]) -> dict[str, Any]:
    """MADE-UP times by the layer of the reference."""
    words = {"operator": "Conv", "kernel": "Conv", "device": "CPU"}
    rows = [{"name": f"row {i}", "source": name, "ns": ns, **words} for i, (name, ns) in enumerate(spent.items())]
    return {"layers": rows}


def test_times_of_nodes_are_those_of_the_modules_and_the_rest_is_nobodys(store: Store) -> None:
    models = modeller(store)
    name = nodes(models)
    spent: dict[str | None, int] = {name["Conv 0"]: 500, name["ConvTranspose 0"]: 70, name["MaxPool 0"]: 30, None: 6}
    measure(store, FIRST, profile(spent))
    times = models.times.take()
    assert {layer: row.ns for layer, row in times.layers.items()} == {"first.0": 500.0, "up": 70.0}
    assert times.layers["first.0"].multiplications == 16 * 9 * 16 * 16
    assert {*times.untimed} == MODULES - {"first.0", "up"}
    assert times.elsewhere_ns == 36.0
    assert (times.target, times.variant, times.provenance) == ("onnxruntime", FIRST.digest, "emulated")


def test_of_two_processes_the_one_that_was_not_disturbed_tells_of_a_layer(store: Store) -> None:
    models = modeller(store)
    first, up = nodes(models)["Conv 0"], nodes(models)["ConvTranspose 0"]
    sides = {"candidate": profile({first: 5400, up: 70, None: 9}), "baseline": profile({first: 1400, up: 75, None: 4})}
    for beside, least in ((FIRST.digest, 1400.0), (SECOND.digest, 5400.0)):
        measured = replace(made_up.measurement(FIRST), layers=sides, baseline_variant=beside)
        store.keep(measured)
        times = models.times.take()
        assert {layer: row.ns for layer, row in times.layers.items()} == {"first.0": least, "up": 70.0}
        assert times.elsewhere_ns == (4.0 if beside == FIRST.digest else 9.0), "another baseline is another network"


def test_the_first_target_that_tells_times_gives_them(store: Store) -> None:
    models = modeller(store)
    measure(store, FIRST, {"missing": "its runtime has no profiler"})
    measure(store, SECOND, profile({nodes(models)["Conv 0"]: 500}))
    assert models.times.take().target == "openvino"


def test_why_there_are_none_is_said_of_each_target_before_anything_is_trained(store: Store) -> None:
    measure(store, FIRST, {"missing": "its runtime has no profiler"})
    task = Counting()
    models = modeller(store, task)
    with pytest.raises(Unsupported) as caught:
        models.reference(by_time(0.5, ""))
    for words in ("no profiler", "the baseline of openvino has no measurement", 'allocation = ["compute"]'):
        assert words in str(caught.value)
    assert task.epochs == 0
    measure(store, SECOND, profile({"a layer of another file": 500}))
    with pytest.raises(Unsupported, match="openvino: its runtime's layers have other names"):
        models.times.take()


def test_a_model_is_made_by_the_times_it_names_and_by_no_others(store: Store) -> None:
    task = Counting()
    models = modeller(store, task)
    measure(store, FIRST, profile({nodes(models)["Conv 2"]: 50_000_000, nodes(models)["Conv 0"]: 500}))
    times = models.times.take()
    with pytest.raises(DataError, match=f"{LAYER_TIMES}: its times are gone, and .* has {times.digest}"):
        models.reference(by_time(0.75, times.digest))
    keep_times(store.root, times, ())
    kept = models.reference(by_time(0.75, times.digest)).path.parent
    assert (kept / "weights.pt").is_file()
    assert models.start_notes(by_time(0.75, times.digest)) == (times.text,)
    assert models.start_notes(FIRST) == ()
    epochs = task.epochs
    with pytest.raises(DataError, match=f"its times are {times.digest}, and .* has {'0' * 16}"):
        models.reference(by_time(0.75, "0" * 16))
    assert task.epochs == epochs


def test_widths_on_disk_tell_a_models_widths(store: Store) -> None:
    """Nothing is weighed again on reading, so no times are needed."""
    from edgedeploy.compress.model import restore

    models = modeller(store)
    measure(store, FIRST, profile({nodes(models)["Conv 2"]: 50_000_000, nodes(models)["Conv 0"]: 500}))
    times = models.times.take()
    keep_times(store.root, times, ())
    variant = by_time(0.75, times.digest)
    weights = models.reference(variant).path.with_name("weights.pt")
    (store.root / LAYER_TIMES).unlink()
    again = modeller(store)
    assert again.reference(variant).path.with_name("weights.pt") == weights
    back = restore(LeveledEdges(), variant, again.baseline_model, weights)
    assert channel_widths(back)["deeper"] < channel_widths(again.baseline_model)["deeper"]


def test_kept_times_are_never_others(store: Store) -> None:
    models = modeller(store)
    measure(store, FIRST, profile({nodes(models)["Conv 0"]: 500}))
    times = models.times.take()
    with pytest.raises(DataError, match=f"it is gone; variants here have the times {'0' * 16}"):
        keep_times(store.root, times, {"0" * 16})
    assert kept_times(store.root) is None
    keep_times(store.root, times, {times.digest})
    assert kept_times(store.root) == times
    (store.root / LAYER_TIMES).write_text("{}")
    with pytest.raises(DataError, match="Put a copy of it back"):
        kept_times(store.root)
