"""Frozen dataclasses as JSON and back, by their fields alone: whoever adds a field to a class has added it everywhere.

A field's type is ``int``, ``float``, ``str``, ``bool``, ``Any`` (JSON as it is), ``Optional[T]``, ``Tuple[T, ...]``,
``Tuple[A, B]``, ``Mapping[str, T]``, ``Literal[...]`` of words or another such class. These types are evaluated here, on
boards too. The agent's classes therefore write them as Python 3.8 can evaluate them, in modules that do not put evaluation
off (``__future__``).
"""

from __future__ import annotations

import math
import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, Callable, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

_UNIONS = (Union, getattr(types, "UnionType", Union))
_SCALARS = (bool, int, float, str)


class WireError(ValueError):
    """A value that is not of the class's form. The message names the field: ``candidate.blocks_ns[0][3]``."""


def to_json(value: Any) -> Any:
    """``value`` as dicts, lists and scalars. Raises ``TypeError`` for what JSON has no word for."""
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if is_dataclass(value):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    raise TypeError(f"{type(value).__name__} is not sent: {value!r}")


def from_json(cls: type[T], data: Any, *, kept: bool = False) -> T:
    """The ``cls`` that :func:`to_json` made ``data`` of. Raises :class:`WireError`.

    Every field has to be there and no other, because both ends of a wire are of one release. With ``kept``, ``data`` is from
    a file that another release may have written: a field that came later takes its default, an unknown one is ignored.
    """
    value: T = _reader(cast(Hashable, cls))(data, "", kept)
    return value


Reader = Callable[[Any, str, bool], Any]  # (data, where it stands, kept)


@lru_cache(maxsize=None)
def _reader(kind: Hashable) -> Reader:
    """What reads a value of the type ``kind``. Raises ``TypeError`` for a type that is not listed above."""
    if kind is Any:
        return lambda data, where, kept: data
    if kind in _SCALARS:
        return _scalar(kind)
    if is_dataclass(kind):
        return _record(kind)
    return _generic(kind, get_origin(kind), get_args(kind))


def _generic(kind: Any, origin: Any, arguments: tuple[Any, ...]) -> Reader:
    if origin in _UNIONS and len(arguments) == 2 and type(None) in arguments:
        (inner,) = [_reader(item) for item in arguments if item is not type(None)]
        return lambda data, where, kept: None if data is None else inner(data, where, kept)
    if origin is Literal:
        return _one_of(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _many(arguments[0])
    if origin is tuple:
        return _row([_reader(item) for item in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping) and arguments[0] is str:
        return _mapping(_reader(arguments[1]))
    raise TypeError(f"{kind} cannot be read from JSON")


def _wrong(where: str, wanted: str, data: Any) -> WireError:
    return WireError(f"{where or 'the value'}: expected {wanted}, but got {repr(data)[:80]}")


def _scalar(kind: Any) -> Reader:
    """A whole number is a ``float`` too; nothing else is converted. ``True`` is no number, NaN and infinity are none."""
    taken = (int, float) if kind is float else (kind,)

    def read(data: Any, where: str, kept: bool) -> Any:
        if type(data) not in taken or (isinstance(data, float) and not math.isfinite(data)):
            raise _wrong(where, f"a finite {kind.__name__}" if kind is float else kind.__name__, data)
        return kind(data)

    return read


def _one_of(words: tuple[Any, ...]) -> Reader:
    def read(data: Any, where: str, kept: bool) -> Any:
        if not isinstance(data, str) or data not in words:
            raise _wrong(where, f"one of {', '.join(words)}", data)
        return data

    return read


def _many(kind: Any) -> Reader:
    reader = _reader(kind)

    def read(data: Any, where: str, kept: bool) -> Any:
        if not isinstance(data, (list, tuple)):
            raise _wrong(where, "a list", data)
        if kind is int and set(map(type, data)) <= {int}:  # long series of times are most of a result
            return tuple(data)
        return tuple(reader(item, f"{where}[{index}]", kept) for index, item in enumerate(data))

    return read


def _row(readers: list[Reader]) -> Reader:
    def read(data: Any, where: str, kept: bool) -> Any:
        if not isinstance(data, (list, tuple)) or len(data) != len(readers):
            raise _wrong(where, f"a list of {len(readers)}", data)
        return tuple(reader(item, f"{where}[{index}]", kept) for index, (reader, item) in enumerate(zip(readers, data)))

    return read


def _mapping(reader: Reader) -> Reader:
    def read(data: Any, where: str, kept: bool) -> Any:
        if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
            raise _wrong(where, "an object", data)
        return {key: reader(item, f"{where}.{key}".lstrip("."), kept) for key, item in data.items()}

    return read


def _record(cls: Any) -> Reader:
    hints = get_type_hints(cls)
    readers = {item.name: _reader(hints[item.name]) for item in fields(cls)}
    plain = {name: hint for name, hint in hints.items() if hint in (int, str, bool)}  # most of a record is of these
    may_lack = {i.name for i in fields(cls) if i.default is not MISSING or i.default_factory is not MISSING}

    def read(data: Any, where: str, kept: bool) -> Any:
        if not isinstance(data, Mapping):
            raise _wrong(where, f"the fields of {cls.__name__}", data)
        lacking = [name for name in readers if name not in data and not (kept and name in may_lack)]
        unknown = [] if kept else [name for name in data if name not in readers]
        if lacking or unknown:
            said = [f"{name!r} is missing" for name in lacking] + [f"{name!r} is unknown" for name in unknown]
            raise WireError(f"{where or cls.__name__}: {', '.join(said)}")
        there = [name for name in readers if name in data]
        values = {}
        for name in there:
            value = data[name]
            if type(value) is not plain.get(name):
                value = readers[name](value, f"{where}.{name}".lstrip("."), kept)
            values[name] = value
        return cls(**values)

    return read
