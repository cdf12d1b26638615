"""The network as a picture, and who cannot be told apart from the pick."""

from __future__ import annotations

from pathlib import Path

import made_up
import made_up_report
import pytest
from small_onnx import u_shaped

from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.layers import LayerTime, Profile
from edgedeploy.reference.export import describe
from edgedeploy.report.drawing import Box, Drawing, Stroke, Words
from edgedeploy.report.network import WIDTH, group_of, network_drawing
from edgedeploy.report.rivals import rivals_of, rivals_section
from edgedeploy.study.models import write_reference
from edgedeploy.study.outline import Outline, outline_of
from edgedeploy.study.store import Store


def profile(times: dict[str, int]) -> Profile:
    return Profile(tuple(LayerTime(name, name, "Conv", "kernel", "CPU", ns) for name, ns in times.items()))


OURS = {"down": 100, "deep": 400, "up": 300, "head": 50}
THEIRS = {"down": 800, "deep": 400, "up": 400, "head": 10}
OUTLINE = Outline(
    {"down": 0, "deep": 2, "up": 0, "head": 0}, {"deep": ("down",), "up": ("deep", "down"), "head": ("up",)}
)


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    found = network_drawing(profile(OURS), profile(THEIRS), ("pick", "baseline"), OUTLINE)
    assert found is not None
    return found


def boxes(drawing: Drawing, role: str) -> dict[str, Box]:
    """The layers of the pick (whose hints name the baseline's time), or of the baseline."""
    found = [shape for shape in drawing.shapes if isinstance(shape, Box) and f", {role}" in shape.hint]
    return {box.hint.split(" ")[0]: box for box in found}


def test_a_layer_is_as_long_as_it_takes_in_both_networks(drawing: Drawing) -> None:
    mine, theirs = boxes(drawing, "baseline"), boxes(drawing, "pick")
    assert list(mine) == list(OURS) and list(theirs) == list(THEIRS)
    assert mine["deep"].width == pytest.approx(theirs["deep"].width)
    assert theirs["down"].width - mine["down"].width == pytest.approx(7 * (mine["up"].width - mine["down"].width) / 2)
    assert all(box.x + box.width <= WIDTH for box in (*mine.values(), *theirs.values()))


def test_its_level_is_that_of_its_maps_and_a_skip_is_drawn(drawing: Drawing) -> None:
    mine = boxes(drawing, "baseline")
    assert mine["down"].y == mine["up"].y == mine["head"].y < mine["deep"].y
    strokes = [shape for shape in drawing.shapes if isinstance(shape, Stroke)]
    assert len(strokes) == 2, "from down to up, in each network"
    assert strokes[0].points[0][0] == pytest.approx(mine["down"].x + mine["down"].width)
    assert strokes[0].points[-1][0] == pytest.approx(mine["up"].x)


def test_its_colour_says_what_became_of_it(drawing: Drawing) -> None:
    paints = {name: box.paint for name, box in boxes(drawing, "baseline").items()}
    assert paints == {"down": "much-faster", "deep": "same", "up": "faster", "head": "much-slower"}
    assert group_of(15, 10)[0] == "slower" and group_of(5, None)[0] == "alone" and group_of(5, 0)[0] == "alone"
    assert "1 at most half of the time; 1 less time; 1 more than twice as long" in drawing.label


def test_without_a_file_of_the_network_its_layers_stand_in_a_row() -> None:
    found = network_drawing(profile(OURS), profile(THEIRS), ("pick", "baseline"), Outline())
    assert found is not None
    assert len({box.y for box in boxes(found, "baseline").values()}) == 1
    assert network_drawing(Profile((), "no profiler"), profile(THEIRS), ("a", "b"), OUTLINE) is None


def test_names_that_do_not_fit_are_not_written() -> None:
    long = {f"{'x' * 400}/conv": 100, "y" * 400: 100}
    found = network_drawing(profile(long), profile(long), ("a", "b"), Outline())
    assert found is not None
    assert [shape.text for shape in found.shapes if isinstance(shape, Words) and shape.size == 11 and shape.y > 50] == [
        "conv",
        "conv",
    ]


def test_the_outline_is_read_from_the_studys_own_reference(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.model_folder("made-up")
    folder.mkdir(parents=True)
    write_reference(describe(u_shaped(folder / "reference.onnx")), folder)
    found = outline_of(store, "made-up", {"down", "deep", "up"})
    assert found.level == {"down": 0, "deep": 1, "up": 0}
    assert found.inputs == {"down": (), "deep": ("down",), "up": ("deep", "down")}
    next(folder.glob("*.onnx")).write_bytes(b"another file")
    assert outline_of(store, "made-up", {"down"}) == Outline(), "what is not as it was made is not read"
    assert outline_of(store, "nothing", {"down"}) == Outline()


def test_a_rival_is_who_no_bound_tells_apart() -> None:
    """Two variants that answer and take alike, and one that is far off."""
    cases = made_up.cases(0.85, seed=3)
    twin = {case: {**values, "dice_mean": (values["dice_mean"] or 0.0) + 1e-4} for case, values in cases.items()}
    pick, other = made_up.variant("openvino", "int8", 0.5), made_up.variant("openvino", "int8", 0.51)
    items = [
        made_up.measurement(per_case=cases),
        made_up.measurement(pick, per_case=cases, latency_ms=2.0, seed=1),
        made_up.measurement(other, per_case=twin, latency_ms=2.01, seed=2),
        made_up.measurement(made_up.variant("openvino", "int8", 0.25), dice=0.7, latency_ms=1.0, seed=3),
    ]
    front = made_up_report.front(items)
    assert front.pick is not None and front.pick.digest in (pick.digest, other.digest)
    found = rivals_of(front, items, Resampler(front.seed))
    assert [rival.digest for rival in found] == [({pick.digest, other.digest} - {front.pick.digest}).pop()]
    section = rivals_section(front, found)
    assert section is not None and section.blocks
    assert rivals_of(made_up_report.front([]), [], Resampler(0)) == ()
