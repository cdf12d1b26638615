"""The front as files for slides."""

from __future__ import annotations

import dataclasses
import io
import xml.etree.ElementTree as ET
from pathlib import Path

import made_up
import made_up_report
import numpy as np
import pytest
from PIL import Image

from edgedeploy.errors import SpecError, StorageError
from edgedeploy.evidence.front import Front
from edgedeploy.report.drawing import PAINTS, Drawing, Mark, Words
from edgedeploy.report.html import svg
from edgedeploy.report.raster import PIXELS, png
from edgedeploy.report.slides import HEIGHT, WIDTH, front_drawing, write_plot

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def front() -> Front:
    return made_up_report.front()


@pytest.fixture(scope="module")
def drawing(front: Front) -> Drawing:
    found = front_drawing(front)
    assert found is not None
    return found


def test_every_variant_is_drawn_where_its_numbers_are(front: Front, drawing: Drawing) -> None:
    marks = {shape.hint: shape for shape in drawing.shapes if isinstance(shape, Mark) and shape.hint}
    assert set(marks) == {row.variant.label for row in front.rows}
    by_dice = sorted(front.rows, key=lambda row: row.estimates["dice_mean"].value)
    heights = [marks[row.variant.label].y for row in by_dice]
    assert heights == sorted(heights, reverse=True), "more is higher"
    by_time = sorted(front.rows, key=lambda row: row.estimates["latency_ratio"].value)
    places = [marks[row.variant.label].x for row in by_time]
    assert places == sorted(places)
    assert all(0 < mark.x < WIDTH and 0 < mark.y < HEIGHT for mark in marks.values())


def test_the_pick_and_where_the_numbers_are_from_are_named(front: Front, drawing: Drawing) -> None:
    assert front.pick is not None
    words = [shape.text for shape in drawing.shapes if isinstance(shape, Words)]
    assert front.labels[front.pick.digest] in words and "the pick" in words
    assert any("(emulated)" in text for text in words)


def test_a_front_without_a_pick_says_so(front: Front) -> None:
    found = front_drawing(dataclasses.replace(front, pick=None))
    assert found is not None
    assert "nothing is shown fit to ship" in [shape.text for shape in found.shapes if isinstance(shape, Words)]


@pytest.mark.fault(38)
@pytest.mark.parametrize("word", ["<script>alert(1)</script>", "&lt;", '"><image href="x"/>', "\x00\x1b\ud800"])
def test_the_svg_is_one_whatever_things_are_called(word: str, tmp_path: Path) -> None:
    hostile = made_up.variant("openvino", "int8", 0.75, resolution=word)
    items = [made_up.measurement(), made_up.measurement(hostile, dice=0.85, latency_ms=2.0)]
    path = write_plot(made_up_report.front(items), tmp_path / "front.svg")
    root = ET.fromstring(path.read_bytes())
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "style", "rect", "polyline", "polygon", "circle", "text"),
    }
    assert root.get("role") == "img" and root.find(f"{SVG}title") is not None


def test_the_png_shows_the_same(drawing: Drawing, tmp_path: Path, front: Front) -> None:
    image = np.asarray(Image.open(io.BytesIO(png(drawing))))
    assert image.shape == (PIXELS * HEIGHT, PIXELS * WIDTH, 3)
    colour = tuple(int(PAINTS["blue"].fill[at : at + 2], 16) for at in (1, 3, 5))
    for shape in drawing.shapes:
        if isinstance(shape, Mark) and shape.paint == "blue" and shape.hint:
            seen = image[round(PIXELS * shape.y), round(PIXELS * shape.x)]
            assert np.abs(seen.astype(int) - colour).max() < 24, "a point of the front stands there"
    assert write_plot(front, tmp_path / "a.png").read_bytes() == write_plot(front, tmp_path / "b.png").read_bytes()
    assert len(svg(drawing)) < 100_000


def test_one_value_alone_has_a_place() -> None:
    found = front_drawing(made_up_report.front([made_up.measurement()]))
    assert found is not None and any(isinstance(shape, Mark) for shape in found.shapes)


def test_what_cannot_be_drawn_or_written_is_told(front: Front, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.svg or \.png"):
        write_plot(front, tmp_path / "front.pdf")
    with pytest.raises(SpecError, match="nothing to draw"):
        write_plot(made_up_report.front([]), tmp_path / "front.svg")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_plot(front, tmp_path / "file" / "front.svg")
