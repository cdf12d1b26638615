"""What leaves a site: the allow-list, its bounds and the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from federated_said import ASKED, POINT, SAID
from pydantic import ValidationError

from edgedeploy.errors import DataError, SpecError
from edgedeploy.federated.leaving import Bounds, Door
from edgedeploy.federated.messages import Answer, Request, read_message


def test_every_message_is_in_the_log_with_its_bytes_before_it_leaves(tmp_path: Path) -> None:
    door = Door(tmp_path, Bounds())
    data = door.passed(Answer(**SAID))
    (line,) = door.left()
    assert line["bytes"] == len(data) and line["again"] is False
    assert "cells.accuracy" in line["fields"] and "baseline.worst" in line["fields"]
    assert (tmp_path / "left" / f"{'3' * 16}-001.json").read_bytes() == data
    assert door.passed(Answer(**SAID)) == data
    assert [item["again"] for item in door.left()] == [False, True]


def test_bounds_keep_a_message_inside_and_out_of_the_log(tmp_path: Path) -> None:
    size = len(Answer(**SAID).as_bytes())
    with pytest.raises(SpecError, match="most_message is"):
        Door(tmp_path, Bounds(message_bytes=size - 1)).passed(Answer(**SAID))
    door = Door(tmp_path, Bounds(total_bytes=2 * size - 1))
    door.passed(Answer(**SAID))
    with pytest.raises(SpecError, match="most_bytes"):
        door.passed(Answer(**{**SAID, "number": 2}))
    assert len(door.left()) == 1
    for line in (
        "{torn",
        "[]",
        "7",
        '{"sha256": "1", "bytes": 5}',
        '{"bytes": -9, "sha256": "' + "0" * 64 + '"}',
        "\xff",
    ):
        (tmp_path / "left.jsonl").write_bytes(line.encode("latin-1"))
        with pytest.raises(DataError, match="cannot be read"):
            door.passed(Answer(**SAID))


def test_values_of_single_cases_leave_where_the_site_shares_them_only(tmp_path: Path) -> None:
    cell = {**SAID["cells"][0], "per_case": (0.5, None)}
    answer = Answer(**{**SAID, "cells": (cell,)})
    with pytest.raises(SpecError, match="single cases"):
        Door(tmp_path, Bounds()).passed(answer)
    assert not (tmp_path / "left.jsonl").exists()
    Door(tmp_path, Bounds(per_case=True)).passed(answer)


@pytest.mark.parametrize(
    "change",
    [
        {"note": "patient 17"},
        {"site": "north; patient 17"},
        {"site": "n" * 41},
        {"failure": "DataError: /data/patient-17.dcm"},
        {"cells": ({"candidate": 0, "word": "patient 17"},)},
        {"cells": ({"candidate": 0, "word": "failed", "failure": "no such file"},)},
        {"cells": ({"candidate": 0, "word": "not shown", "accuracy": float("nan")},)},
        {"cells": tuple({"candidate": 0, "word": "failed"} for _ in range(17))},
        {"cells": ({"candidate": 0, "word": "not shown", "pixels": [1, 2]},)},
        {"cells": ({"candidate": 0, "word": "not shown", "accuracy": 1e308},)},
        {"cells": ({"candidate": 0, "word": "not shown", "cases": -1},)},
        {"baseline": {**SAID["baseline"], "artifact": "host-17"}},
    ],
)
def test_a_field_that_is_not_listed_or_not_of_its_kind_cannot_be_said(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Answer(**{**SAID, **change})
    written = {**Answer(**SAID).model_dump(mode="json"), **json.loads(json.dumps(change, default=str))}
    with pytest.raises(DataError):
        read_message(Answer, json.dumps(written).encode(), "an answer", 1 << 16)


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": ({**POINT, "width": 0.5},)},
        {"candidates": ({**POINT, "training": "qat"},)},
        {"candidates": ({**POINT, "precision": "int8; rm"},)},
        {"candidates": ({"precision": "int8"},)},
        {"candidates": ({**POINT, "target": True},)},
        {"candidates": (POINT, POINT)},
        {"candidates": ({**POINT, "threads": float("nan")},)},
        {"upto": 2},
        {"checkpoint_sha256": "../../etc/passwd"},
        {"code": "import os"},
        {"number": 1000},
    ],
)
def test_a_coordinator_asks_for_builds_and_for_nothing_else(change: dict[str, Any]) -> None:
    Request(**ASKED)
    with pytest.raises(ValidationError):
        Request(**{**ASKED, **change})


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b"\xff\xfe", b"{}", b"1", b'{"schema": 1e999}'])
def test_bytes_that_are_no_message_are_one_error(data: bytes) -> None:
    with pytest.raises(DataError):
        read_message(Answer, data, "an answer", 1 << 20)


def test_what_left_under_a_number_stays_when_something_else_leaves_under_it(tmp_path: Path) -> None:
    """A coordinator that asks another thing by an old number does not wipe what it was told."""
    door = Door(tmp_path, Bounds())
    sent = [door.passed(Answer(**{**SAID, "pick": pick})) for pick in (None, 0, 1)]
    kept = {path.read_bytes() for path in (tmp_path / "left").iterdir()}
    assert kept == set(sent) and len(door.left()) == 3
    assert (tmp_path / "left" / f"{'3' * 16}-001.json").read_bytes() == sent[-1]
