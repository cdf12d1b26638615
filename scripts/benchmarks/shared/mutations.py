"""Damage to JSON, TOML, lines and arrays: by chance and by malice, the same for the same random numbers."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import zipfile
from typing import Any, Final

import numpy as np

NESTED: Final = "@nested@"
DEEP: Final = 20_000

HOSTILE: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, -3, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.0, -0.5, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "../../../outside",
        "/etc/passwd",
        "..",
        ".",
        "x" * 100_000,
        "\ud800",
        "\x1b[2J",
        "{{7*7}}",
    ),
    *("<script>alert(1)</script>", "$(touch outside)", "NaN", "1e999", "0" * 64, "f" * 64, "done", "failed", "running"),
    *([], {}, [[]], [{}], [None] * 3, {"": ""}, {"missing": 7}, [1] * 5000, [[1, 2]] * 50, NESTED),
)
"""What is put in the place of a value."""


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: the container, and the key or index in it. Of long lists a few at both ends."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        keys: list[Any] = list(item) if isinstance(item, dict) else list(range(len(item)))
        for key in keys if len(keys) < 12 else [*keys[:8], *keys[-2:]]:
            found.append((item, key))
            if isinstance(item[key], (dict, list)):
                waiting.append(item[key])
    return found


def mutate_json(value: Any, rng: random.Random) -> bytes:
    """The text of a damaged copy: one to three values are replaced, removed, repeated or scaled; now and then bytes are
    damaged instead."""
    if rng.random() < 0.15:
        return mutate_bytes(json.dumps(value).encode(), rng)
    damaged = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = spots(damaged)
        if not places:
            break
        _damage(*rng.choice(places), rng)
    text = json.dumps(damaged)
    if f'"{NESTED}"' in text:
        opened = rng.choice(('{"a":', "["))
        text = text.replace(f'"{NESTED}"', opened * DEEP + "1" + ("}" if opened != "[" else "]") * DEEP, 1)
    return text.encode("utf-8", "surrogatepass")


def _damage(container: Any, key: Any, rng: random.Random) -> None:
    old, way = container[key], rng.randrange(9)
    if way <= 2:
        container[key] = copy.deepcopy(rng.choice(HOSTILE))
    elif way == 3:
        del container[key]
    elif way == 4 and isinstance(old, (int, float)) and not isinstance(old, bool) and abs(old) < 1e300:
        container[key] = rng.choice((-old, old * 50, old // 50, old * 10**9, old + 1, old - 1, float(old), str(old)))
    elif way == 5 and isinstance(old, list) and old:
        container[key] = rng.choice((old * 50, old[:1], old[:-1], [*old, old[0]], [old], old[::-1], []))
    elif way == 6 and isinstance(container, dict):
        container[rng.choice(("unknown", "__class__", "fault", "missing", "../x", str(key) + "s"))] = container.pop(key)
    elif way == 7 and isinstance(old, str):
        as_hex = old.encode("utf-8", "surrogatepass").hex()
        container[key] = rng.choice((old[:-1], old + "\n", old.upper(), "../" + old, old * 40, as_hex))
    else:
        container[key] = rng.choice(([old], {"x": old}, str(old), None))


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, doubled, inserted bytes; a leading mark of another encoding."""
    held = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, way = rng.randrange(len(held) + 1), rng.randrange(9)
        if way == 0 and at < len(held):
            held[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del held[at:]
        elif way == 2:
            held[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif way == 3:
            held[at:at] = held[at : at + rng.choice((1, 16, 256))]
        elif way == 4:
            held[at:at] = rng.choice(
                (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b'"', b"}", b"[", b"\\u0000", b"9" * 400)
            )
        elif way == 5:
            del held[at : at + rng.choice((1, 2, 16))]
        elif way == 6 and at < len(held):
            held[at] = rng.randrange(256)
        elif way == 7:
            held = bytearray(
                bytes(held).decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-8-sig", "utf-7")))
            )
        elif way == 8:
            held[at:at] = rng.choice((b"[" * DEEP, b'{"a":' * DEEP, b"NaN", b"-Infinity", b"1e999", b"\\ud800"))
    return bytes(held)


# -- study files

TOML_VALUES: Final = (
    *(
        "inf",
        "-inf",
        "nan",
        "-1",
        "0",
        "1",
        "true",
        '""',
        "[]",
        "{}",
        "[[]]",
        '"\\u0000"',
        '"../../x"',
        "1e308",
        "-0.0",
    ),
    *(
        "9" * 400,
        "0x" + "f" * 100,
        "9" * 5000,
        "1979-05-27",
        "07:32:00",
        "[1, 2",
        "'''",
        '"a',
        "{ a = 1, b = [",
        "1_0_0",
    ),
    *(
        "[" * 3000 + "]" * 3000,
        "[" * DEEP,
        "{a=" * 3000 + "1" + "}" * 3000,
        '"' + "x" * 50_000 + '"',
        "[" + "1," * 5000 + "]",
    ),
    *(
        '["onnxruntime", "onnxruntime"]',
        '"1000000000000 ms"',
        '"nan ms"',
        '"-5 s"',
        '"inf s"',
        '"1e400 s"',
        '"5 parsecs"',
    ),
)
_VALUE: Final = re.compile(r"=\s*(.+?)\s*$", re.MULTILINE)


def mutate_toml(text: str, rng: random.Random) -> bytes:
    """A study file with other values, keys, lines or bytes."""
    if rng.random() < 0.15:
        return mutate_bytes(text.encode(), rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.splitlines()
        at, way = rng.randrange(len(lines)), rng.randrange(8)
        found = list(_VALUE.finditer(text))
        if way <= 2 and found:
            start, end = rng.choice(found).span(1)
            text = text[:start] + rng.choice(TOML_VALUES) + text[end:]
            continue
        if way == 3:
            del lines[at]
        elif way == 4:
            lines.insert(at, rng.choice(lines))
        elif way == 5:
            key = rng.choice(("width", "a.b.c", "trials", '""', "x" * 500))
            lines.insert(at, f"{key} = {rng.choice(TOML_VALUES)}")
        elif way == 6:
            key = rng.choice(("a", "measure", "study", "space", "plans", "boards"))
            lines.insert(
                at, rng.choice((f"[{key}]", f"[[{key}]]", f"[{'.'.join([key] * 3000)}]", f"[{key}.{key}.x]", "["))
            )
        elif way == 7:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        text = "\n".join(lines) + "\n"
    return text.encode("utf-8", "replace")


# -- arrays


def mutate_arrays(arrays: dict[str, Any], rng: random.Random) -> bytes:
    """An ``.npz`` of other shapes, types or names, with a header that lies, with members that are bombs, or with damaged
    bytes."""
    damaged = dict(arrays)
    name = rng.choice([*damaged])
    array, way = damaged[name], rng.randrange(12)
    if way == 0:
        damaged[name] = array.astype(
            rng.choice((np.complex64, np.complex128, np.float16, np.int8, np.bool_, "U8", "S3"))
        )
    elif way == 1:
        damaged[name] = array[: rng.randrange(len(array))]
    elif way == 2:
        damaged[name] = np.concatenate([array] * rng.choice((2, 50)))
    elif way == 3:
        damaged[name] = rng.choice((array.T, array[..., :1], array.reshape(-1), array[0], np.float32(1), array[None]))
    elif way == 4:
        damaged[rng.choice(("other", "", "../../outside", "/etc/outside", "a\0b", "x" * 5000))] = damaged.pop(name)
    elif way == 5:
        damaged[name] = np.full_like(array, rng.choice((np.nan, np.inf, 0.0)))
    elif way == 6:
        return _with_header(damaged, name, rng)
    elif way == 7:
        return _bomb(name, rng)
    elif way == 8:
        del damaged[name]
    data = _packed(damaged)
    return mutate_bytes(data, rng) if way >= 9 else data


def _packed(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def _with_header(arrays: dict[str, Any], name: str, rng: random.Random) -> bytes:
    shape = rng.choice(
        ((1 << 40,), (1 << 62, 1 << 62), (-1, 4), (0, 1 << 62), (2,), (1,) * 70, (10**30,), ("x",), (2.5,))
    )
    descr = rng.choice(("<f4", "|O", "<c16", "<f999", "[('a', '<f4')]", "|V4", "<M8[s]", ">f4", "|S0"))
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    header = rng.choice((header, header, header[:-5], b"(" * 5000, header + b" " * 70_000, b"__import__('os')\n"))
    content = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + arrays[name].tobytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def _bomb(name: str, rng: random.Random) -> bytes:
    """8 MB of zeros in 8 KB, or a directory that says that there are terabytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as stream:
        np.lib.format.write_array(stream, np.zeros(1 << 20, np.float64), allow_pickle=False)
    data = bytearray(buffer.getvalue())
    if rng.random() < 0.5:
        at = data.rindex(b"PK\x01\x02")
        data[at + 24 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    return bytes(data)
