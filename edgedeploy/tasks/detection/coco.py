"""COCO's annotation files, read with limits, and mAP as pycocotools computes it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError
from edgedeploy.tasks.pictures.table import inside, read_limited

MAX_JSON_BYTES: Final = 512 << 20
MOST_DETECTIONS: Final = 100
"""Of an image; COCO's own limit."""

_LARGEST: Final = 1e12
"""Of pixels: no image is wider, and no box has a larger area."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """An object: left, top, width and height in pixels of the image. A ``crowd`` is neither found nor missed."""

    category: int
    xywh: tuple[float, float, float, float]
    area: float
    crowd: bool = False


@dataclass(frozen=True)
class Picture:
    """An image of the file with its objects; ``group`` and ``split`` are keys of it that the study names, ``size`` its width
    and height where the file states them."""

    name: str
    path: Path
    boxes: tuple[Box, ...]
    group: str | None = None
    split: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Found:
    """A detection: as :class:`Box`, with its score."""

    category: int
    xywh: tuple[float, float, float, float]
    score: float


def read_coco(
    path: Path, folder: Path, group_key: str = "", split_key: str = ""
) -> tuple[dict[int, str], list[Picture]]:
    """Category names by id, and the images with their boxes. Raises ``DataError`` naming the entry that is wrong."""
    asked = f"annotations {path}"
    try:
        data = json.loads(read_limited(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as exc:
        raise DataError(asked, f"it is no JSON ({exc})", "Is it a COCO file?") from None
    names = ("categories", "images", "annotations")
    tables: dict[str, Any] = {key: data.get(key) if isinstance(data, dict) else None for key in names}
    for key, table in tables.items():
        if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise DataError(asked, f"it has no list {key!r}", "A COCO file has images, annotations and categories")
    categories = {
        _whole(row, "id", f"{asked}, category"): str(row.get("name", row["id"])) for row in tables["categories"]
    }
    if len(categories) < len(tables["categories"]):
        raise DataError(asked, "two categories have one id", "Each category needs an id of its own")
    boxes: dict[int, list[Box]] = {_whole(row, "id", f"{asked}, image"): [] for row in tables["images"]}
    if not categories or not boxes or len(boxes) < len(tables["images"]):
        found = f"{len(categories)} categories and {len(boxes)} different ids for {len(tables['images'])} images"
        raise DataError(asked, found, "Each image needs an id of its own")
    for row in tables["annotations"]:
        where = f"{asked}, annotation {row.get('id')}"
        image, category = _whole(row, "image_id", where), _whole(row, "category_id", where)
        if image not in boxes or category not in categories:
            found = f"it names image {image} and category {category}, and one of them is not there"
            raise DataError(where, found, "Remove it, or add what it names")
        boxes[image].append(_box(row, category, where))
    pictures = []
    for row in tables["images"]:
        where = f"{asked}, image {row['id']}"
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(where, f"its file_name is {name!r}", "Name its file")
        keys = {key: str(row[key]) for key in (group_key, split_key) if key and row.get(key) not in (None, "")}
        place = inside(folder, name, where)
        sides = (row.get("width"), row.get("height"))
        size = sides if type(sides[0]) is int and type(sides[1]) is int else None
        pictures.append(Picture(name, place, tuple(boxes[row["id"]]), keys.get(group_key), keys.get(split_key), size))
    return categories, pictures


def _whole(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if type(value) is not int:
        raise DataError(where, f"its {key} is {value!r}", "Ids are whole numbers")
    return value


def _box(row: Mapping[str, Any], category: int, where: str) -> Box:
    values: Any = row.get("bbox")
    sound = isinstance(values, list) and len(values) == 4
    if not sound or not all(map(_is_number, values)) or min(values[2:]) < 0:
        raise DataError(where, f"its bbox is {values!r}", "Left, top, width and height in pixels")
    left, top, width, height = map(float, values)
    area = row.get("area", width * height)
    if not _is_number(area):
        raise DataError(where, f"its area is {area!r}", "Leave it out, or state it in pixels")
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DataError(where, f"its iscrowd is {crowd!r}", "0 for one object, 1 for a crowd")
    return Box(category, (left, top, width, height), float(area), bool(crowd))


def _is_number(value: Any) -> bool:
    """A finite number of an ordinary size; JSON's whole numbers have no largest one."""
    return isinstance(value, (int, float)) and abs(value) < _LARGEST


@dataclass(frozen=True)
class Matches:
    """What pycocotools says of one image, by category (``COCOeval.evaluateImg``); None where there is nothing."""

    by_category: tuple[Any, ...]

    @property
    def found_half(self) -> float | None:
        """The share of the image's objects that a detection of their category overlaps by half (IoU 0.5); None without
        objects."""
        rows = [row for row in self.by_category if row is not None]
        hits = [row["gtMatches"][0][row["gtIgnore"] == 0] > 0 for row in rows]
        every = np.concatenate(hits) if hits else np.empty(0)
        return float(every.mean()) if every.size else None


def match(truth: Sequence[Box], found: Sequence[Found], categories: Sequence[int]) -> Matches:
    """One image's detections held against its objects."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects = [
        {
            "id": n,
            "image_id": 1,
            "category_id": b.category,
            "bbox": list(b.xywh),
            "area": b.area,
            "iscrowd": int(b.crowd),
        }
        for n, b in enumerate(truth, start=1)
    ]
    answers = [{"image_id": 1, "category_id": b.category, "bbox": list(b.xywh), "score": b.score} for b in found]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        ground = COCO()
        ground.dataset = {"images": [{"id": 1}], "annotations": objects, "categories": [{"id": c} for c in categories]}
        ground.createIndex()
        theirs = ground.loadRes(answers) if answers else COCO()
        judge = COCOeval(ground, theirs, "bbox")
        _limit(judge.params, categories, [1])
        judge.evaluate()
    return Matches(tuple(judge.evalImgs))


def mean_precision(matches: Sequence[Matches], categories: Sequence[int]) -> dict[str, float | None]:
    """COCO's AP over all images (IoU 0.5 to 0.95), at IoU 0.5 and 0.75, and its average recall; boxes of all areas, 100
    detections an image. None without any object."""
    from pycocotools.cocoeval import COCOeval

    judge = COCOeval(iouType="bbox")
    _limit(judge.params, categories, list(range(len(matches))))
    judge._paramsEval = judge.params
    judge.evalImgs = [item.by_category[k] for k in range(len(categories)) for item in matches]
    with contextlib.redirect_stdout(io.StringIO()):
        judge.accumulate()
    precision, recall = judge.eval["precision"], judge.eval["recall"]
    return {
        "map": _mean(precision),
        "map_50": _mean(precision[0]),
        "map_75": _mean(precision[5]),
        "recall": _mean(recall),
    }


def _limit(params: Any, categories: Sequence[int], images: Sequence[int]) -> None:
    params.catIds, params.imgIds = sorted(categories), list(images)
    params.areaRng, params.areaRngLbl, params.maxDets = [[0, 1e10]], ["all"], [MOST_DETECTIONS]


def _mean(values: Floats) -> float | None:
    """Over what is there; -1 stands for categories without an object."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None
