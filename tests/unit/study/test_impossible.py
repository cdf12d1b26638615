"""Limits that no variant can meet are found before anything is trained or measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import made_up
import made_up_study
import pytest
from edges_task import Edges
from levels_task import ARCH, LeveledEdges

from edgedeploy.compress.sizes import least_weights
from edgedeploy.evidence.proofs import Proof
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.search.space import Space
from edgedeploy.spec.study import StudySpec, parse_spec
from edgedeploy.study.front import read_front
from edgedeploy.study.impossible import keep_proofs, kept_proofs, proofs

METRICS = {"dice_mean": MetricInfo("maximize", "1", "Dice", 1.0)}
SPACE = Space(
    targets=("onnxruntime",),
    parameters={"width": (1.0, 0.5), "precision": ("float32", "int8")},
    arch_defaults=ARCH,
    target_precisions={"onnxruntime": ("float32", "int8")},
    default_threads=1,
)
WEIGHTS = 16 * 9 + 16 * 64 * 9 + 64 * 64 * 9 + 64 * 16 * 4 + 32 * 16 * 9 + 16 * 2
HALF = 8 * 9 + 8 * 32 * 9 + 32 * 32 * 9 + 32 * 8 * 4 + 16 * 8 * 9 + 8 * 2


def spec(*limits: str) -> StudySpec:
    text = made_up_study.ONE_TRIAL + "".join(f"[[constraints]]\n{limit}\n" for limit in limits)
    return parse_spec(text, Path("study.toml"))[0]


def found(*limits: str, space: Space = SPACE) -> tuple[Proof, ...]:
    study = spec(*limits)
    return proofs(study, LeveledEdges(), space, study.metric_table(METRICS))


def with_values(**parameters: tuple[Scalar, ...]) -> Space:
    return replace(SPACE, parameters={**SPACE.parameters, **parameters})


def test_weights_are_counted_as_pruning_leaves_them() -> None:
    assert least_weights(LeveledEdges(), ARCH, 1.0) == WEIGHTS
    assert least_weights(LeveledEdges(), ARCH, 0.5) == HALF


@pytest.mark.parametrize("metric", ["size_bytes", "peak_memory_bytes"])
def test_a_file_smaller_than_the_weights_of_the_narrowest_is_impossible(metric: str) -> None:
    (proof,) = found(f'metric = "{metric}"\nat_most = "{HALF - 1} B"')
    assert proof.best == HALF
    assert f"{HALF:,} weights" in proof.line and "8 bits at least" in proof.line
    assert proof.as_json()["provenance"] == "bound"
    assert Proof.from_json(proof.as_json()) == proof
    assert not found(f'metric = "{metric}"\nat_most = "{HALF} B"')


def test_the_bound_is_of_the_narrowest_of_the_fewest_bits() -> None:
    limit = f'metric = "size_bytes"\nat_most = "{HALF - 1} B"'
    assert found(limit, space=with_values(precision=("float32",)))[0].best == 2 * HALF, "OpenVINO may keep float16"
    assert not found(limit, space=with_values(precision=("float32", "int4-weights")))
    assert not found(limit, space=with_values(width=(1.0, 0.5, 0.3)))
    assert not found(limit, space=with_values(allocation=("uniform", "bytes"))), "layers may be narrower than half"
    assert found('metric = "size_bytes"\nat_most = "100 B"', space=with_values(allocation=("uniform", "bytes")))


def test_memory_of_a_device_is_not_the_process_s() -> None:
    limit = 'metric = "peak_memory_bytes"\nat_most = "100 B"'
    assert found(limit)
    assert not found(limit, space=replace(SPACE, targets=("onnxruntime", "tensorrt")))


@pytest.mark.parametrize(
    ("limit", "best"),
    [
        ('metric = "dice_mean"\nat_least = 1.01', 1.0),
        ('metric = "dice_mean"\nat_least = 0.99\nmargin = 0.02', 1.0),
        ('metric = "latency_p50_ns"\nat_most = "1 ms"\nmargin = "2 ms"', 0.0),
        ('metric = "dice_mean"\nat_least = 1.0', None),
        ('metric = "dice_mean"\nat_most = 1.5', None),
        ('metric = "latency_ratio"\nat_most = 0.0001', None),
        ('metric = "size_bytes"\nat_least = "1 KB"', None),
    ],
)
def test_no_value_is_better_than_the_best_there_can_be(limit: str, best: float | None) -> None:
    assert [proof.best for proof in found(limit)] == ([] if best is None else [best])


def test_a_mean_of_zeros_and_ones_is_one_at_most_and_what_may_fall_below_zero_has_no_least() -> None:
    slope, right = "sustained_slope_percent_per_min", MetricInfo("maximize", "1", "share", yes_or_no=True)
    limits = (f'metric = "{slope}"\nat_most = "-0.1 %/min"', 'metric = "right"\nat_least = 1.01')
    study = spec(*limits)
    table = study.metric_table({**METRICS, slope: BOARD_METRICS[slope], "right": right})
    assert [(proof.constraint.metric, proof.best) for proof in proofs(study, LeveledEdges(), SPACE, table)] == [
        ("right", 1.0)
    ]


def test_each_impossible_limit_has_its_proof() -> None:
    both = found('metric = "size_bytes"\nat_most = "1 B"', 'metric = "dice_mean"\nat_least = 2.0')
    assert [proof.constraint.metric for proof in both] == ["size_bytes", "dice_mean"]


class Broken(Edges):
    metrics: Mapping[str, MetricInfo] = METRICS
    architecture: Mapping[str, Sequence[Scalar]] = {"size": (16,)}

    def build(self, **arch: Scalar) -> None:  # type: ignore[override]
        raise RuntimeError("no network")


def test_what_cannot_be_built_proves_nothing() -> None:
    study = spec('metric = "size_bytes"\nat_most = "1 B"')
    space = replace(SPACE, arch_defaults={"size": 16})
    assert proofs(study, Broken(), space, study.metric_table(METRICS)) == ()


def test_the_front_says_what_was_proved(tmp_path: Path) -> None:
    store = made_up_study.new_store(tmp_path / "study", [made_up.variant()])
    keep_proofs(store, found('metric = "dice_mean"\nat_least = 1.01'))
    front = read_front(store.root)
    assert front.proofs == kept_proofs(store)
    assert front.explanation() == [front.proofs[0].line]
    assert front.as_json()["proofs"][0]["provenance"] == "bound"
    store.keep(made_up.measurement(made_up.variant()))
    assert read_front(store.root).explanation()[0] == front.proofs[0].line
    keep_proofs(store, ())
    assert read_front(store.root).proofs == ()
