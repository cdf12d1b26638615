"""The file of packed weights: equal in every bit, small, and refused when it is not whole."""

from __future__ import annotations

import json
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edgedeploy.compress.codec.coded import Constant, Kept, aside, digest_of_weights, int8, stepped, wound
from edgedeploy.compress.codec.container import Packed, digest_in, from_bytes, read_packed, to_bytes, write_packed
from edgedeploy.errors import DataError


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "a.weight": rng.standard_normal((16, 8, 3, 3)).astype(np.float32),
        "b.weight": (0.01 * rng.standard_normal((40, 33))).astype(np.float32),
        "b.bias": rng.standard_normal(40).astype(np.float32),
    }


@cache
def packed(coder: str = "rans") -> Packed:
    arrays = weights()
    return Packed(
        {
            "a.weight": stepped(arrays["a.weight"], 0.25),
            "b.weight": wound(arrays["b.weight"]),
            "c.weight": int8(arrays["a.weight"]),
            "b.bias": aside(arrays["b.bias"]),
            "b.fine": aside(arrays["b.bias"], bits=8),
            "count": aside(np.array(7, np.int64)),
            "ones": aside(np.ones(64, np.float32)),
            "order": aside(np.arange(5, dtype=np.int64)),
            "empty": aside(np.zeros((0, 3), np.float32)),
        },
        coder,  # type: ignore[arg-type]
    )


@cache
def whole() -> bytes:
    return to_bytes(packed())


@pytest.mark.parametrize("coder", ["rans", "zstd"])
def test_what_is_read_is_what_was_packed_in_every_bit(tmp_path: Path, coder: str) -> None:
    if coder == "zstd":
        pytest.importorskip("zstandard")
    write_packed(tmp_path / "m.edpack", packed(coder))
    again, arrays = read_packed(tmp_path / "m.edpack")
    wanted = packed(coder).decoded()
    assert list(arrays) == sorted(wanted)
    for name, array in wanted.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()
    assert to_bytes(again) == to_bytes(packed(coder))
    assert digest_in(to_bytes(again)) == digest_of_weights(wanted)


def test_known_bytes_decode_to_known_weights() -> None:
    """Files of this version are read by later releases: this one was written by the first."""
    data = bytes.fromhex(KNOWN)
    _, arrays = from_bytes(data)
    assert arrays["w"].tolist() == [[0.5, -0.25, 0.0], [0.25, 0.0, 0.0]]
    assert arrays["b"].tolist() == [1.5, -2.0]


def test_steps_err_by_half_a_step_and_rows_of_int8_by_half_of_theirs() -> None:
    array = weights()["a.weight"]
    assert np.abs(stepped(array, 0.25).decoded() - array).max() <= 0.125 + 1e-6
    rows = np.abs(array).reshape(16, -1).max(1) / 127
    assert (np.abs(int8(array).decoded() - array).reshape(16, -1).max(1) <= rows / 2 + 1e-6).all()


def test_winding_is_nearer_with_more_nodes_and_an_odd_count_comes_back_whole() -> None:
    array = weights()["b.weight"].reshape(-1)[:1319]
    errors = [float(np.abs(wound(array, nodes=nodes).decoded() - array).mean()) for nodes in (16, 64, 256)]
    assert errors[0] > errors[1] > errors[2]
    assert wound(array).decoded().shape == array.shape


def test_constants_and_halves() -> None:
    assert isinstance(aside(np.ones(9, np.float32)), Constant)
    big = np.array([1e6, 1.0], np.float32)  # no float16
    kept = aside(big)
    assert isinstance(kept, Kept)
    assert kept.decoded().tolist() == big.tolist()


@pytest.mark.parametrize("place", range(0, 1400, 37))
def test_a_bit_that_was_turned_anywhere_is_found(place: int) -> None:
    data = bytearray(whole())
    data[place % len(data)] ^= 4
    with pytest.raises(DataError):
        from_bytes(bytes(data))


def test_every_file_that_was_cut_off_is_refused() -> None:
    data = whole()
    for length in range(0, len(data), 61):
        with pytest.raises(DataError):
            from_bytes(data[:length])


@pytest.mark.parametrize(
    "rows",
    [
        [["w", [1 << 40], "c", "float32"]],
        [["w", [-1], "c", "float32"]],
        [["w", [2], "k", "object", "object"]],
        [["w", [2], "x"]],
        [["w", [2, 2], "s", 3]],
        [["w", [2], "w", 1 << 30, 1]],
        [["w", [2], "c", "float32"], ["w", [2], "c", "float32"]],
        [["w", "ab", "c", "float32"]],
        [[1, [2], "c", "float32"]],
    ],
)
def test_headers_that_ask_for_too_much_or_make_no_sense_are_refused(rows: list[object]) -> None:
    header = zlib.compress(json.dumps({"coder": "rans", "lanes": 1, "arrays": rows}).encode())
    plain, tables, stream = zlib.compress(bytes(8)), zlib.compress(b""), struct.pack("<I", 1 << 16)
    parts = [header, plain, tables, stream]
    data = struct.pack("<7sB32s4I", b"EDPACK\0", 1, bytes(32), *map(len, parts)) + b"".join(parts)
    with pytest.raises(DataError):
        from_bytes(data)


def test_a_part_that_unfolds_beyond_its_bound_is_refused() -> None:
    header = zlib.compress(b'{"coder":"rans","lanes":1,"arrays":[]}')
    parts = [header, zlib.compress(bytes(50_000_000)), zlib.compress(b""), struct.pack("<I", 1 << 16)]
    data = struct.pack("<7sB32s4I", b"EDPACK\0", 1, bytes(32), *map(len, parts)) + b"".join(parts)
    with pytest.raises(DataError, match="longer than it may be"):
        from_bytes(data)


def test_another_version_is_named() -> None:
    data = bytearray(to_bytes(packed()))
    data[7] = 9
    with pytest.raises(DataError, match="version 9"):
        from_bytes(bytes(data))


KNOWN = (
    "45445041434b00017406a2a98a602d1984bc9f12da2707474b87d42935d3872d93c4d36b8fab5c5b54000000100000001800"
    "00000400000078daab564ace4f492d52b2522a4acc2b56d251ca49cc4b2d56b232d4514a2c2a4aac0432a3a395929474a28d"
    "627594b2810ad272f2134b8c8d602c4333a5589d68a572900a1d63a01aa02186b1b1b500ba1719d978da63b06338c0c0d060"
    "070006b801bd78dafbffffff7f1606c6a6d5edff9b5637ad06004ca8090f0a7ec706"
)


def made_up(header: bytes, plain: bytes = b"", tables: bytes = b"", stream: bytes = b"") -> bytes:
    """A file of stranger's parts, whose lengths are right."""
    parts = [*(zlib.compress(part) for part in (header, plain, tables)), stream]
    head = struct.pack("<7sB32s4I", b"EDPACK\0", 1, b"\0" * 32, *map(len, parts))
    return head + b"".join(parts)


def test_a_header_that_is_deeper_than_python_reads_is_damage() -> None:
    with pytest.raises(DataError, match="damaged"):
        from_bytes(made_up(b"[" * 100_000))


def test_a_few_bytes_do_not_decode_for_minutes() -> None:
    """One symbol in one lane: 2^26 numbers are as many steps, and no byte of the stream."""
    header = json.dumps({"coder": "rans", "lanes": 1, "arrays": [["x", [1 << 26], "s", 1]]}).encode()
    table = struct.pack("<iHB", 0, 1, 1) + bytes([128 | 16, 0])
    with pytest.raises(DataError, match="1 lanes for 67108864 numbers"):
        from_bytes(made_up(header, np.float32(1).tobytes(), table, struct.pack("<I", 1 << 16)))
