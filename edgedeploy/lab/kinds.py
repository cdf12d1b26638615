"""Checks that boards are of one kind, and that they have not changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from edgedeploy.errors import CommandFailed, SpecError
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.metric_table import ACROSS_BOARDS, BOARD_METRICS


def health_check(expected: BoardInfo) -> Callable[[BoardInfo], None]:
    """A check of the connected board before anything is sent to it: is it the same machine, and still of the same kind?

    The check raises ``CommandFailed`` with what has changed since the study began.
    """

    def check(info: BoardInfo) -> None:
        changed = (*info.other_machine(expected), *info.unlike(expected))
        if changed:
            raise CommandFailed(
                f"board {info.name!r}: health check",
                f"it is not the board that the study began with: {'; '.join(changed)}",
                "Restore its old state, or start a new study",
            )

    return check


def require_unchanged(
    measured: Iterable[BoardInfo], boards: Iterable[BoardInfo], began: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, ...]:
    """Compare the boards of a resumed study with their earlier probes (``measured``, oldest first). Returns changes of
    their software as sentences; the user decides whether they matter. ``began`` are the identities that the boards had when
    the study began, empty where it is not known.

    Raises ``SpecError`` for another machine under the same name, or the same machine with another processor (a virtual
    machine that has moved): one front would mix their numbers.
    """
    before = {info.name: info for info in measured}
    told = []
    for info in boards:
        identity, expected = began.get(info.name, ""), before.get(info.name)
        if identity and identity != info.identity:
            expected = replace(expected or info, identity=identity)
        if expected is None:
            continue
        changed = (*info.other_machine(expected), *info.other_hardware(expected))
        if changed:
            raise SpecError(
                f"go on with the study on board {info.name!r}",
                f"it is not the board that was measured before: {_reflashed(info, expected)}{'; '.join(changed)}",
                "Give it its old system back, or start a new study with another --out: one folder holds one board's numbers",
            )
        told += [
            f"board {info.name} has changed since it was measured: {text}" for text in info.other_software(expected)
        ]
    return tuple(told)


def _reflashed(info: BoardInfo, expected: BoardInfo) -> str:
    """What another machine id means, in words."""
    if info.identity == expected.identity:
        return ""
    same = [
        word
        for word in ("serial", "host_key")
        if getattr(info, word) and getattr(info, word) == getattr(expected, word)
    ]
    if same:
        return f"it was installed anew (the same {' and '.join(same)}, another machine id); "
    return "it was installed anew, or is another machine (another machine id); "


def require_alike(boards: Sequence[BoardInfo]) -> None:
    """Raises ``SpecError`` unless all boards are of one kind."""
    for other in boards[1:]:
        differences = other.unlike(boards[0])
        if differences:
            raise SpecError(
                f"boards {boards[0].name!r} and {other.name!r} in one study",
                f"they are of two kinds: {'; '.join(differences)}",
                "Give each kind a study of its own",
            )


def require_comparable(objectives: Iterable[str]) -> None:
    """Raises ``SpecError`` for an objective that cannot be compared across boards."""
    for name in objectives:
        if name in BOARD_METRICS and name not in ACROSS_BOARDS:
            raise SpecError(
                f"objective {name} on several boards",
                "it is one board's own number: two boards of one kind differ in it",
                f"Choose one that compares across boards ({', '.join(sorted(ACROSS_BOARDS))}), or search on one board",
            )
