"""The one door of a site: what leaves is checked against the allow-list and its bounds, written down, and only then sent."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, SpecError
from edgedeploy.federated.messages import Answer, read_message
from edgedeploy.files import append_line, write_atomic
from edgedeploy.study.store import utc_now

LOG: Final = "left.jsonl"
KEPT: Final = "left"


@dataclass(frozen=True)
class Bounds:
    """What a site lets out: ``message_bytes`` of one answer, ``total_bytes`` of all that ever left by this log, and whether
    values of single cases may (``per_case``). With ``histograms`` a part of a secure sum may, of at most ``sum_bytes``."""

    message_bytes: int = 16 << 10
    total_bytes: int = 1 << 20
    per_case: bool = False
    histograms: bool = False
    sum_bytes: int = 4 << 20


class Door:
    """Where messages leave a site. ``folder`` keeps ``left.jsonl``, a line for each message before it leaves (time, number,
    kind, bytes, SHA-256, fields), and in ``left/`` the very bytes."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self._folder = folder
        self._bounds = bounds

    @property
    def log(self) -> Path:
        return self._folder / LOG

    def left(self) -> list[dict[str, Any]]:
        """What has left, as the log has it. Raises ``DataError`` for a log with a line that cannot be read: what it hides
        would not count against the bound."""
        if not self.log.exists():
            return []
        try:
            lines = self.log.read_text(encoding="utf-8").splitlines()
            found = [json.loads(line) for line in lines if line]
            for line in found:
                if len(str(line["sha256"])) != 64 or type(line["bytes"]) is not int or line["bytes"] < 0:
                    raise ValueError("no line of ours")
            return found
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(
                f"log {self.log}", "a line cannot be read", "Mend it by hand: bytes that left are counted by it"
            ) from None

    def passed(self, answer: Answer) -> bytes:
        """The bytes of ``answer``, which are in the log now and may be sent. The same answer again is logged again, and
        counts once.

        Raises ``SpecError`` where the site's bounds refuse it. Nothing has left then.
        """
        data = answer.as_bytes()
        most_bytes = self._bounds.message_bytes if answer.sum is None else self._bounds.sum_bytes
        if len(data) > most_bytes:
            name = "most_message" if answer.sum is None else "most_sum"
            found = f"the answer has {len(data)} bytes, and {name} is {most_bytes}"
            raise SpecError(f"[leaves] {name}", found, "Raise it if that is right, or share less; then start it again")
        read_message(Answer, data, "what is about to leave", most_bytes)  # as the other side reads it
        self._refuse_cases(answer)
        if answer.sum is not None and not self._bounds.histograms:
            raise SpecError(
                "[leaves] histograms", "the answer is a part of a sum, and none may leave", "A bug: tell us"
            )
        sha256 = hashlib.sha256(data).hexdigest()
        before = self.left()
        gone = {str(line["sha256"]): int(line["bytes"]) for line in before}
        total = sum(gone.values()) + (0 if sha256 in gone else len(data))
        if total > self._bounds.total_bytes:
            found = (
                f"with {len(data)} bytes more, {total} would have left, and most_bytes is {self._bounds.total_bytes}"
            )
            raise SpecError("[leaves] most_bytes", found, "Read the log, then raise it if that is right")
        self._keep(self._folder / KEPT / f"{answer.release}-{answer.number:03d}.json", data)
        line = {
            "utc": utc_now(),
            "release": answer.release,
            "number": answer.number,
            "kind": answer.kind,
            "bytes": len(data),
            "sha256": sha256,
            "again": sha256 in gone,
            "fields": fields_of(answer.model_dump(mode="json")),
        }
        append_line(self.log, json.dumps(line, sort_keys=True).encode())
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        """The bytes that leave; what left before under this number (the coordinator asked something else by it) stays, with
        its hash in its name."""
        earlier = path.read_bytes() if path.exists() else data
        if earlier != data:
            write_atomic(path.with_name(f"{path.stem}-{hashlib.sha256(earlier).hexdigest()}.json"), earlier)
        write_atomic(path, data)

    def _refuse_cases(self, answer: Answer) -> None:
        said: list[Any] = [*answer.cells, *([answer.baseline] if answer.baseline else [])]
        if not self._bounds.per_case and any(item.per_case for item in said):
            raise SpecError(
                "[leaves] share", "the answer has values of single cases, and this site shares sums", "A bug: tell us"
            )


def fields_of(value: Any, where: str = "") -> list[str]:
    """Dotted names of all fields that hold something; a list of values counts its length."""
    found: dict[str, int] = {}
    _walk(value, where, found)
    return [f"{name} x {count}" if count > 1 else name for name, count in sorted(found.items())]


def _walk(value: Any, where: str, found: dict[str, int]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _walk(item, f"{where}.{name}" if where else str(name), found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _walk(item, where, found)
    elif value is not None and value != "":
        found[where] = found.get(where, 0) + 1
