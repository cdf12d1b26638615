"""Run a server until this process's standard input is closed: ``python guard.py PROGRAM ARGUMENT...``.

A pipe is closed even when the process that holds it is killed. This file imports nothing of the project, so that
it starts in a few milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main() -> None:
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def follow() -> None:
        os._exit(server.wait())

    threading.Thread(target=follow, daemon=True).start()
    while os.read(0, 4096):
        pass
    server.terminate()
    try:
        server.wait(2.0)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
