"""Sets a board's clock governor and nvpmodel mode for a run, and restores them in any case.

The old settings are written to a journal on disk before anything is changed. A killed run leaves the journal behind,
and the next holder of the board restores from it first. nvpmodel's mode survives a reboot, and so does the journal.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import read_json
from edgedeploy.runtime.sensors.jetson import mode_names, parse_query
from edgedeploy.runtime.sensors.sysfs import SYSTEM

JOURNAL = "powermode.json"
TOOL_TIMEOUT_S = 30.0
SETTINGS = ("governor", "nvpmodel")


class PowerModes:
    """The modes of the board whose file system begins at ``root``; ``folder`` is where the journal lives."""

    def __init__(self, folder: Path, root: Path = SYSTEM) -> None:
        self._journal = folder / JOURNAL
        self._root = root

    def offered(self) -> dict[str, str]:
        """The modes by name, with what sets each: governors that every core has, and the modes of
        ``/etc/nvpmodel.conf`` if the tool is installed. Whether this user may set them shows only when they are set."""
        by_core = [set(_listed(path)) for path in self._files()]
        modes = dict.fromkeys(sorted(set.intersection(*by_core)) if by_core else (), "governor")
        if _program() is not None:
            modes.update(dict.fromkeys(mode_names(self._root).values(), "nvpmodel"))
        return modes

    @contextmanager
    def held(self, asked: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """Set what is ``asked`` (``governor`` by name, ``nvpmodel`` by number or name) and restore it at the end.

        Yields what was set, by the names that a snapshot uses. Raises :class:`RuntimeFault` ``power_mode_refused`` when
        the board does not offer the mode, does not allow it, or stays in another one.
        """
        self.restore()
        wanted = {name: str(value) for name, value in asked.items() if value is not None}
        if not wanted:
            yield {}
            return
        unknown = sorted(set(wanted) - set(SETTINGS))
        if unknown:
            raise _refused(f"{', '.join(unknown)} cannot be set; {' and '.join(SETTINGS)} can")
        set_up: dict[str, str] = {}
        mode = self._number(wanted["nvpmodel"]) if "nvpmodel" in wanted else None
        if "governor" in wanted:
            self._check_offered(wanted["governor"])
        self._write_journal(
            {
                "nvpmodel": None if mode is None else _current_mode()[0],
                "governor": self._governors() if "governor" in wanted or mode is not None else {},
            }
        )
        try:
            if mode is not None:
                set_up["power_mode"] = self._set_mode(mode)
            if "governor" in wanted:
                self._set_governors(dict.fromkeys(self._governors(), wanted["governor"]))
                set_up["governor"] = wanted["governor"]
            yield set_up
        finally:
            self.restore()

    def restore(self) -> bool:
        """Restore the journal's settings, then remove it. Returns whether there was a journal.

        Raises :class:`RuntimeFault` ``power_mode_refused`` with what to do by hand, and keeps the journal.
        """
        before = read_json(self._journal)
        if before is None:
            return False
        try:
            if before["nvpmodel"] is not None and _current_mode()[0] != before["nvpmodel"]:
                self._set_mode(before["nvpmodel"])
            present = self._governors()
            self._set_governors({cpu: name for cpu, name in before["governor"].items() if cpu in present})
        except (RuntimeFault, KeyError) as exc:
            raise _refused(
                f"could not put back {before}: {exc}. Restore it by hand and remove {self._journal}"
            ) from exc
        self._journal.unlink()
        return True

    def _write_journal(self, before: Mapping[str, Any]) -> None:
        """Flush the journal to disk before anything changes: first the file, then its folder."""
        part = self._journal.with_name(f".{JOURNAL}.{os.getpid()}")
        with part.open("w", encoding="utf-8") as stream:
            json.dump(before, stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self._journal)
        folder = os.open(self._journal.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _files(self) -> list[Path]:
        return sorted(self._root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))

    def _governors(self) -> dict[str, str]:
        """Governor by core, such as ``{"cpu0": "schedutil"}``."""
        return {path.parent.parent.name: path.read_text(encoding="ascii").strip() for path in self._files()}

    def _check_offered(self, governor: str) -> None:
        files = self._files()
        if not files:
            raise _refused("this board has no cpufreq: it gives no say over its governor")
        for path in files:
            offered = _listed(path)
            if governor not in offered:
                raise _refused(f"governor {governor!r} is not offered; this board has {', '.join(offered)}")

    def _set_governors(self, by_core: Mapping[str, str]) -> None:
        for path in self._files():
            core = path.parent.parent.name
            if core not in by_core:
                continue
            try:
                path.write_text(by_core[core] + "\n", encoding="ascii")
            except OSError as exc:
                raise _refused(f"governor {by_core[core]!r} was not accepted ({exc}); root may set it") from exc
            found = path.read_text(encoding="ascii").strip()
            if found != by_core[core]:
                raise _refused(f"governor {by_core[core]!r} was set on {core}, which still runs {found!r}")

    def _number(self, asked: str) -> int:
        names = mode_names(self._root)
        if asked.isdigit():
            if names and int(asked) not in names:
                raise _refused(f"nvpmodel has no mode {asked}; this board has {names}")
            return int(asked)
        for number, name in names.items():
            if name == asked:
                return number
        raise _refused(f"nvpmodel has no mode {asked!r}; this board has {', '.join(names.values()) or 'none'}")

    def _set_mode(self, number: int) -> str:
        """Set a mode and return its name and number. The tool asks back when a mode needs a reboot, and gets no
        answer."""
        said = _tool(["-m", str(number)])
        found, name = _current_mode()
        if found != number:
            raise _refused(f"nvpmodel -m {number} left mode {name} ({found}); it said {said[-300:]!r}")
        return f"{name} ({number})"


def _current_mode() -> tuple[int, str]:
    try:
        return parse_query(_tool(["-q"]))
    except ValueError as exc:
        raise _refused(str(exc)) from exc


def _listed(governor: Path) -> list[str]:
    """The governors of the core of this ``scaling_governor`` file; none if the driver does not list them."""
    try:
        return governor.with_name("scaling_available_governors").read_text(encoding="ascii").split()
    except OSError:
        return []


def _program() -> str | None:
    return shutil.which("nvpmodel") or shutil.which("nvpmodel", path="/usr/sbin")


def _tool(arguments: Sequence[str]) -> str:
    program = _program()
    if program is None:
        raise _refused("no nvpmodel on this board")
    argv = [program, *arguments] if os.geteuid() == 0 else ["sudo", "-n", program, *arguments]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _refused(f"nvpmodel {' '.join(arguments)}: {exc}") from exc
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise _refused(f"nvpmodel {' '.join(arguments)} ended with {done.returncode}: {text[-300:]!r}; root may set it")
    return text


def _refused(message: str) -> RuntimeFault:
    return RuntimeFault("power_mode_refused", message)
