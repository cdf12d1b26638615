"""How an emulated board is reached, by several threads at once."""

from __future__ import annotations

import threading
from pathlib import Path

from edgedeploy.boards.emulated.board import reach, session_folder


def test_who_connects_while_another_does_never_finds_the_host_key_gone() -> None:
    with session_folder("edgedeploy-reach-") as folder:
        known, over = Path(reach(folder, 2022, "root").known_hosts or ""), threading.Event()

        def connect() -> None:
            while not over.is_set():
                reach(folder, 2022, "root")

        thread = threading.Thread(target=connect)
        thread.start()
        try:
            found = {known.read_bytes() for _ in range(500)}
        finally:
            over.set()
            thread.join()
    assert len(found) == 1 and found != {b""}
