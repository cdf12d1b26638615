"""A drawing as PNG, by Pillow, which the pictures of cases need anyway."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.report.drawing import PAINTS, Box, Drawing, Mark, Paint, Point, Shape, Stroke, Words

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

PIXELS: Final = 2
"""Pixels of the file for one of the drawing, a side."""

_FINE: Final = 2
"""What is drawn is so many times larger, and shrunk: Pillow's lines have steps."""

_DASH: Final = (3.0, 2.0)


def png(drawing: Drawing) -> bytes:
    """The picture in light colours, twice as large in pixels as the drawing says; the same bytes for the same drawing."""
    from PIL import Image, ImageDraw

    scale = PIXELS * _FINE
    size = round(drawing.width * scale), round(drawing.height * scale)
    image = Image.new("RGB", size, "#ffffff")
    brush = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        if not isinstance(shape, Words):
            _draw(brush, shape, scale)
    image = image.resize((size[0] // _FINE, size[1] // _FINE), Image.Resampling.LANCZOS)
    brush = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        if isinstance(shape, Words):
            _write(image, brush, shape)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _draw(brush: ImageDraw, shape: Shape, scale: float) -> None:
    if isinstance(shape, Stroke):
        _line(brush, shape.points, PAINTS[shape.paint], scale)
    elif isinstance(shape, Box):
        paint = PAINTS[shape.paint]
        corner = (shape.x + shape.width, shape.y + shape.height)
        ends = [(shape.x * scale, shape.y * scale), (corner[0] * scale, corner[1] * scale)]
        brush.rectangle(ends, fill=paint.fill or None)
        if paint.stroke:
            outline = [(shape.x, shape.y), (corner[0], shape.y), corner, (shape.x, corner[1]), (shape.x, shape.y)]
            _line(brush, outline, paint, scale)
    elif isinstance(shape, Mark):
        _mark(brush, shape, scale)


def _mark(brush: ImageDraw, mark: Mark, scale: float) -> None:
    paint = PAINTS[mark.paint]
    if mark.sign == "cross":
        for arm in mark.arms:
            _line(brush, arm, paint, scale)
    elif mark.sign == "diamond":
        brush.polygon([(x * scale, y * scale) for x, y in mark.corners], fill=paint.fill or None)
    else:
        ends = [(mark.x + side * mark.size, mark.y + side * mark.size) for side in (-1, 1)]
        box = [(x * scale, y * scale) for x, y in ends]
        width = max(1, round(paint.width * scale))
        brush.ellipse(box, fill=paint.fill or None, outline=paint.stroke or None, width=width)


def _line(brush: ImageDraw, points: Sequence[Point], paint: Paint, scale: float) -> None:
    scaled = [(x * scale, y * scale) for x, y in points]
    width = max(1, round(paint.width * scale))
    if not paint.dashed:
        brush.line(scaled, fill=paint.stroke, width=width)
        return
    on, off = (length * scale for length in _DASH)
    for (x0, y0), (x1, y1) in pairwise(scaled):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        at = 0.0
        while at < length:
            end = min(length, at + on)
            part = [(x0 + (x1 - x0) * t / length, y0 + (y1 - y0) * t / length) for t in (at, end)]
            brush.line(part, fill=paint.stroke, width=width)
            at = end + off


def _write(image: Any, brush: ImageDraw, words: Words) -> None:
    """With Pillow's own font, so that no font of this host is looked for."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(words.size * PIXELS)
    ink = PAINTS[words.paint].fill
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[words.anchor]
    bold = PIXELS * words.size / 40 if words.bold else 0
    if not words.turned:
        at = (words.x * PIXELS, words.y * PIXELS)
        brush.text(at, words.text, fill=ink, font=font, anchor=anchor, stroke_width=bold)
        return
    left, top, right, bottom = brush.textbbox((0, 0), words.text, font=font, anchor="ls")
    width, height = round(right - left) + 4, round(bottom - top) + 4
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((2 - left, 2 - top), words.text, fill=255, font=font, anchor="ls")
    mask = mask.rotate(90, expand=True)
    shift = {"start": width, "middle": width / 2, "end": 0}[words.anchor]
    image.paste(ink, (round(words.x * PIXELS + top), round(words.y * PIXELS - shift)), mask)
