"""Dataclasses as JSON and back by their fields: what every type becomes, and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgedeploy.runtime.wire.serde import WireError, from_json, to_json


@dataclass(frozen=True)
class Inner:
    number: int
    share: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    maybe: Inner | None
    blocks: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    anything: Mapping[str, Any]
    flag: bool = False
    later: Mapping[str, Inner] = field(default_factory=dict)


FULL = Outer(
    name="x",
    inner=Inner(1, 0.5),
    maybe=Inner(2, 1.5),
    blocks=((1, 2), ()),
    pairs=(("a", "b"),),
    counts={"int8": 3},
    anything={"deep": [1, {"more": None}]},
    flag=True,
    later={"one": Inner(3, 2.0)},
)
DATA = to_json(FULL)


def test_what_was_written_is_read_again() -> None:
    assert from_json(Outer, json.loads(json.dumps(DATA))) == FULL
    assert DATA["blocks"] == [[1, 2], []] and DATA["later"] == {"one": {"number": 3, "share": 2.0}}


def test_a_whole_number_is_a_float_too() -> None:
    read = from_json(Inner, {"number": 1, "share": 2})
    assert isinstance(read.share, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name: expected str, but got 3"),
        ({"inner": {"number": 1}}, "inner: 'share' is missing"),
        ({"inner": {"number": True, "share": 0.0}}, "inner.number: expected int, but got True"),
        ({"inner": {"number": 1, "share": float("nan")}}, "inner.share: expected a finite float, but got nan"),
        ({"inner": None}, "inner: expected the fields of Inner, but got None"),
        ({"blocks": [[1], [2.0]]}, r"blocks\[1\]\[0\]: expected int, but got 2.0"),
        ({"blocks": "12"}, "blocks: expected a list, but got '12'"),
        ({"pairs": [["a"]]}, r"pairs\[0\]: expected a list of 2"),
        ({"counts": {"int8": None}}, "counts.int8: expected int, but got None"),
        ({"counts": []}, "counts: expected an object"),
        ({"new": 1}, "Outer: 'new' is unknown"),
    ],
)
def test_another_form_is_refused_by_the_name_of_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WireError, match=f"^{message}"):
        from_json(Outer, {**DATA, **change})


@pytest.mark.parametrize("name", DATA)
def test_on_the_wire_every_field_has_to_be_there(name: str) -> None:
    with pytest.raises(WireError, match=f"'{name}' is missing"):
        from_json(Outer, {key: value for key, value in DATA.items() if key != name})


def test_a_kept_file_may_be_of_another_release() -> None:
    older = {key: value for key, value in DATA.items() if key not in ("flag", "later")}
    read = from_json(Outer, {**older, "of_a_newer_release": 1}, kept=True)
    assert (read.flag, read.later) == (False, {})
    with pytest.raises(WireError, match="'counts' is missing"):
        from_json(Outer, {key: value for key, value in DATA.items() if key != "counts"}, kept=True)


def test_what_json_cannot_say_is_neither_sent_nor_declared() -> None:
    @dataclass(frozen=True)
    class Wrong:
        raw: bytes

    with pytest.raises(TypeError, match="bytes is not sent"):
        to_json(Wrong(b""))
    with pytest.raises(TypeError, match=r"bytes.* cannot be read from JSON"):
        from_json(Wrong, {"raw": ""})
