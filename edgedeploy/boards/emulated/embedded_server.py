"""A small SSH server for machines without sshd: ``python embedded_server.py FOLDER PORT_FILE``.

It serves shell commands and SFTP on a loopback port to the keys in ``FOLDER/authorized_keys``, shows
``FOLDER/host_key``, and writes ``{"port": N}`` to PORT_FILE when it listens. This file imports nothing of the project.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

SHELL = "/bin/sh"


def can_run() -> bool:
    """Whether asyncssh is installed. Only this file needs it: the host's side uses paramiko."""
    return importlib.util.find_spec("asyncssh") is not None


async def serve(folder: Path, port_file: Path) -> None:
    """Listen until the process is ended."""
    import asyncssh

    class Server(asyncssh.SSHServer):  # type: ignore[misc]
        """Accepts public keys only (asyncssh's default when it is given authorized keys). May serve as a jump host."""

        def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
            return dest_host == "127.0.0.1"

    listener = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "authorized_keys"),
        process_factory=_run_command,
        encoding=None,
        sftp_factory=True,
        line_editor=False,
    )
    part = port_file.with_suffix(".part")
    part.write_text(json.dumps({"port": listener.get_port()}), encoding="ascii")
    part.replace(port_file)
    await listener.wait_closed()


async def _run_command(session: Any) -> None:
    """Run one command as sshd does: through the shell, with pipes, returning its exit status or signal."""
    if session.command is None:
        session.stderr.write(b"interactive shells are not served\n")
        session.exit(1)
        return
    child = await asyncio.create_subprocess_exec(
        SHELL,
        "-c",
        session.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    feeding = asyncio.create_task(_feed(session.stdin, child.stdin))
    await asyncio.gather(_forward(child.stdout, session.stdout), _forward(child.stderr, session.stderr))
    status = await child.wait()
    feeding.cancel()
    if status < 0:
        session.exit_with_signal(_signal_name(-status))
    else:
        session.exit(status)


async def _feed(source: Any, sink: asyncio.StreamWriter) -> None:
    """Copy the client's input to the child, and close the child's input when the client's ends or the client is
    gone."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    except Exception as exc:  # asyncssh reports a lost connection as an error of its own
        sys.stderr.write(f"input ended: {exc!r}\n")
    finally:
        sink.close()


async def _forward(source: asyncio.StreamReader, sink: Any) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except Exception as exc:  # the client is gone: the child's pipes are drained no more, as with sshd
        sys.stderr.write(f"output ended: {exc!r}\n")


def _signal_name(number: int) -> str:
    import signal

    return signal.Signals(number).name[len("SIG") :]


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
