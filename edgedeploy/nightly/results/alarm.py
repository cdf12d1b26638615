"""One message a night to a person, by the user's own command.

At most one: a marker is on the disk before the command starts. Whoever is killed in between sends nothing when the night
goes on, so rather no message than two; the night says ``unknown`` then. A command that fails is not started again either,
because it may have sent what it had: the night says ``failed`` and why.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

from edgedeploy import files
from edgedeploy.nightly.results.kept import night_path
from edgedeploy.nightly.results.words import accept_line, headline, listed
from edgedeploy.records.night import AlarmState, AlarmTold, Night

LIMIT_S: Final = 60.0
"""Of the command. A night does not hang on a mail server."""

MOST_SAID: Final = 400
"""Characters of what the command wrote to standard error, its end: there the reason is."""

PASSED_ON: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "CREDENTIALS_DIRECTORY"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""Names of the environment that the command gets: passwords and tokens of the night's other work are not among them."""

_READ_S: Final = 5.0
_SENDING: Final = "sending"


def tell(night: Night, command: Sequence[str], folder: Path, pages: Sequence[str] = ()) -> AlarmTold | None:
    """What became of the night's message; None where none was due: nothing regressed, or no command was given.

    ``command`` is run without a shell, with the message on standard input. Raises ``StorageError`` where the marker cannot
    be written: then nothing is sent.
    """
    if not night.alarms or not command:
        return None
    marker = night_path(folder, night.night).with_suffix(".alarm")
    if not _begun_here(marker):
        return _earlier(marker)
    try:
        told = _send(command, message(night, pages), environment(os.environ))
    except (OSError, ValueError) as exc:
        marker.unlink(missing_ok=True)  # nothing can have been sent: once it is there, it is
        return AlarmTold("failed", f"{command[0]} cannot be started: {getattr(exc, 'strerror', None) or exc}")
    files.write_json(marker, {"state": told.state, "detail": told.detail})
    return told


def message(night: Night, pages: Sequence[str]) -> str:
    """Its first line fits a subject."""
    lines = [headline(night), "", *(f"- {' '.join(alarm.split())}" for alarm in night.alarms)]
    others = listed(night, ("artifact", "board", "infrastructure"))
    lines += ["", *others] if others else []
    lines += ["", accept_line(night)] if accept_line(night) else []
    lines += ["", *pages] if pages else []
    return "\n".join(lines) + "\n"


def environment(whole: Mapping[str, str]) -> dict[str, str]:
    return {name: whole[name] for name in PASSED_ON if name in whole}


def _begun_here(marker: Path) -> bool:
    """Whether no other attempt of this night began. The marker is on the disk afterwards, its folder's entry too."""
    with files.disk_told(marker):
        try:
            descriptor = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f'{{"state": "{_SENDING}"}}\n')
            stream.flush()
            os.fsync(stream.fileno())
        folder = os.open(marker.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return True


def _earlier(marker: Path) -> AlarmTold:
    """What the attempt before came to. A marker that cannot be read was begun: nothing is sent."""
    with suppress(OSError, ValueError, RecursionError):
        found = files.parsed(files.read_plain(marker, 1 << 16))
        detail = str(found.get("detail", ""))[:MOST_SAID]
        if found.get("state") in ("sent", "earlier"):
            return AlarmTold("earlier", detail)
        if found.get("state") == "failed":
            return AlarmTold("failed", detail)
    return AlarmTold("unknown", "an attempt before this one was ended while it sent the message; it is not sent again")


def _send(command: Sequence[str], text: str, variables: Mapping[str, str]) -> AlarmTold:
    """Raises ``OSError`` or ``ValueError`` where the command cannot be started."""
    with tempfile.TemporaryFile() as given:  # a file: a command that reads nothing blocks nobody
        given.write(text.encode("utf-8", "replace"))
        given.seek(0)
        process = subprocess.Popen(
            list(command),
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(variables),
            start_new_session=True,  # so that its children end with it
        )
    last = bytearray()
    reading = Thread(target=_read, args=(process, last), daemon=True)
    reading.start()
    state, detail = _ended(process, Path(command[0]).name)
    reading.join(_READ_S)
    said = last.decode("utf-8", "replace")
    words = " ".join("".join(one if one.isprintable() else " " for one in said).split())[-MOST_SAID:]
    return AlarmTold(state, f"{detail}: {words}" if words and state == "failed" else detail)


def _ended(process: subprocess.Popen[bytes], name: str) -> tuple[AlarmState, str]:
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        return "failed", f"{name} did not end within {LIMIT_S:.0f} s"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return ("sent", "") if code == 0 else ("failed", f"{name} ended with code {code}")


def _read(process: subprocess.Popen[bytes], last: bytearray) -> None:
    """Keeps the end of what it says: a command that talks without end costs no memory."""
    assert process.stderr is not None
    with process.stderr as stream:
        while part := os.read(stream.fileno(), 1 << 16):
            last[:] = (last + part)[-4 * MOST_SAID :]
