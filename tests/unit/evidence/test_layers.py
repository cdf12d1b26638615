"""What is said of made-up profiles: placement, partitions, both sides by source layer, and why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_up
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.evidence.layers import beside, profile_of
from edgedeploy.records.measurement import Measurement
from edgedeploy.reference.layers import with_sources
from edgedeploy.report.data import ReportData
from edgedeploy.report.html import templates
from edgedeploy.report.layers import layers_section
from edgedeploy.runtime.agent.worker import Worker
from edgedeploy.runtime.sessions.onnxruntime import layers_from_profile
from edgedeploy.runtime.sessions.open import open_session


def layer(name: str, source: str | None, ns: int, device: str = "GPU") -> dict[str, Any]:
    return {
        "name": name,
        "source": source,
        "operator": "Conv",
        "kernel": "fast",
        "device": device,
        "ns": ns,
        "sources": [name],
    }


OURS = [layer("a1", "/a", 500), layer("x", None, 50, "CPU"), layer("b", "/b", 900), layer("a2", "/a", 100)]
THEIRS = [layer("ta", "/a", 700, "CPU"), layer("tc", "/c", 40, "CPU")]


def profiled(ours: Any, theirs: Any) -> Measurement:
    return made_up.measurement(layers={"candidate": ours, "baseline": theirs})


def test_placement_counts_layers_and_hand_overs() -> None:
    found = profile_of(profiled({"runs": 3, "layers": OURS}, {"runs": 3, "layers": THEIRS}), "candidate")
    assert found.placement == {"GPU": 3, "CPU": 1}
    assert found.partitions == 3
    assert found.placement_text() == "GPU 3, CPU 1; 3 partitions"
    assert found.total_ns == 1550


def test_sides_meet_at_the_layers_of_the_reference() -> None:
    item = profiled({"runs": 3, "layers": OURS}, {"runs": 3, "layers": THEIRS})
    rows = beside(profile_of(item, "candidate"), profile_of(item, "baseline"))
    assert [(row.layer, row.ours_ns, row.theirs_ns) for row in rows] == [
        ("/b", 900, None),
        ("/a", 600, 700),
        ("x (added)", 50, None),
        ("/c", None, 40),
    ]


def test_what_is_not_available_says_why() -> None:
    item = profiled({"missing": "the runtime on DLA tells no times of layers"}, {"runs": 3, "layers": THEIRS})
    found = profile_of(item, "candidate")
    assert found.placement_text() == "not available, because the runtime on DLA tells no times of layers"
    assert [row.ours_ns for row in beside(found, profile_of(item, "baseline"))] == [None, None]
    old = Measurement.from_json({key: value for key, value in item.as_json().items() if key != "layers"})
    assert "no layers were profiled" in profile_of(old, "baseline").placement_text()


def test_the_report_sums_what_it_does_not_show_and_escapes_names() -> None:
    from edgedeploy.evidence.front import build_front
    from edgedeploy.records.goals import Objective

    many = [layer(f"<b>{index}", f"/l{index}<script>", 1000 * index) for index in range(30)]
    item = profiled({"runs": 3, "layers": many}, {"missing": "it crashed"})
    front = build_front([item], [Objective("latency_ratio", "minimize")], baseline_digests=[item.digest], margin=0.01)
    section = layers_section(ReportData("made up", front, [item], "", ""))
    text = templates().get_template("sections.html").render(sections=[section])
    assert "10 more" in text and "it crashed" in text
    assert "<script>" not in text and "/l29&lt;script&gt;" in text
    bare = made_up.measurement()
    front = build_front([bare], [Objective("latency_ratio", "minimize")], baseline_digests=[bare.digest], margin=0.01)
    assert layers_section(ReportData("made up", front, [bare], "", "")) is None


def test_times_are_medians_without_the_first_run() -> None:
    def event(name: str, us: int) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": {"op_name": "Conv", "provider": "P"}}

    events = [event("c_token_3", us) for us in (900, 10, 30, 20)] + [{"cat": "Session", "name": "run", "dur": 5}]
    assert layers_from_profile(events) == [
        {"name": "c_token_3", "operator": "Conv", "kernel": "Conv", "device": "P", "sources": ["c"], "ns": 20_000}
    ]


@pytest.mark.parametrize("batch", [(2, 8), (1, 3, 8)], ids=["one product", "tokens"])
def test_linear_layers_that_the_runtime_fuses_have_their_time(batch: tuple[int, ...], tmp_path: Path) -> None:
    """They were "added by the runtime": ``fused product``, and ``product/MatMulAddFusion`` of every transformer."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((8, 4)), "b": rng.standard_normal(4)}
    flat = len(batch) == 2
    first = (
        [helper.make_node("Gemm", ["x", "w", "b"], ["s"], "product")]
        if flat
        else [
            helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
            helper.make_node("Add", ["p", "b"], ["s"], "bias"),
        ]
    )
    graph = helper.make_graph(
        [*first, helper.make_node("Relu", ["s"], ["y"], "clip")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, batch)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (*batch[:-1], 4))],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    path = tmp_path / "linear.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    session = open_session("onnxruntime", tmp_path, path.name, {}, 1)
    feed = {"x": rng.standard_normal(batch).astype(np.float32)}
    found = with_sources({"runs": 2, "layers": session.profile([feed, feed])}, path)
    products = [layer for layer in found["layers"] if "Gemm" in layer["operator"] or "MatMul" in layer["operator"]]
    assert [layer["source"] for layer in products] == ["product"], found
    assert products[0]["name"] != "product", "it is fused, or nothing is shown here"


def test_a_runtime_without_a_profiler_is_a_reason() -> None:
    class Plain:
        device = "NPU"

    class Inputs:
        count = 1

        def feeds(self, case: int) -> dict[str, Any]:
            return {"x": np.zeros(1)}

    worker = Worker(Plain(), Inputs(), folder=None)  # type: ignore[arg-type]
    assert worker.profile(3) == {"missing": "the runtime on NPU tells no times of layers"}
