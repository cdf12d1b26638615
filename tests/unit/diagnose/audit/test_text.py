"""Text in pixels: without a reader it is said that nobody looked; with one, drawn names are found and speckle is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from edgedeploy.diagnose.audit.text import MISSING, PACKAGE, as_picture, look_for_text
from edgedeploy.interfaces.task import Array


def speckle(seed: int, name: str = "") -> Array:
    rng = np.random.default_rng(seed)
    tissue = np.kron(rng.uniform(20, 120, (8, 10)), np.ones((32, 32)))
    grey = np.clip(tissue * rng.gamma(4, 0.25, tissue.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(grey)
    if name:
        ImageDraw.Draw(image).text((12, 10), name, fill=255, font=ImageFont.load_default(18))
    return np.asarray(image)


def test_without_a_reader_nobody_looked_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    found = look_for_text([speckle(0, "MUSTER ANNA 1961-03-04")])
    assert found.images == 0
    assert found.why_not == MISSING
    assert "pip install 'edgedeploy[audit]'" in found.why_not


def test_any_picture_becomes_what_a_reader_takes() -> None:
    scaled = as_picture(np.linspace(-1, 1, 3 * 40 * 50, dtype=np.float32).reshape(3, 40, 50))
    assert scaled is not None
    assert (scaled.shape, scaled.dtype, scaled.min(), scaled.max()) == ((40, 50, 3), np.uint8, 0, 255)
    grey = as_picture(np.zeros((1, 40, 50), np.float32))
    assert grey is not None and grey.shape == (40, 50, 3)
    assert as_picture(np.zeros((8, 8), np.uint8)) is None
    assert as_picture(np.zeros((5, 40, 50, 3), np.uint8)) is None


def test_a_name_is_found_where_it_stands_and_is_not_written_down() -> None:
    pytest.importorskip(PACKAGE, reason="pip install 'edgedeploy[audit]'")
    found = look_for_text([speckle(0), speckle(1, "MUSTER ANNA 1961-03-04"), speckle(2)])
    assert found.images == 3
    assert {item.image for item in found.found} == {1}
    assert found.found[0].box[1] < 40
    assert "MUSTER" not in str(found.as_json())
