"""Stands in for ``python -m edgedeploy``: ``python -I -S warm_client.py SOCKET ARGUMENTS``. See warm_cli.py."""

import json
import os
import signal
import socket
import sys
import typing


def main() -> int:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(sys.argv[1])

    def forward(number: int, _: typing.Any) -> None:
        link.sendall(bytes([number]))

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    asked = {"argv": sys.argv[2:], "cwd": os.getcwd(), "environ": dict(os.environ)}  # noqa: PTH109
    data = json.dumps(asked).encode()
    socket.send_fds(link, [len(data).to_bytes(4, "big")], [0, 1, 2])
    link.sendall(data)
    status = link.recv(4)
    return int.from_bytes(status, "big", signed=True) if len(status) == 4 else 70


if __name__ == "__main__":
    found = main()
    if found < 0:  # ended by a signal: so is this process
        signal.signal(-found, signal.SIG_DFL)
        os.kill(os.getpid(), -found)
    os._exit(found)
