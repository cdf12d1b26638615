"""A headless Chromium that is driven through the pipe of its DevTools protocol: nothing to install beside the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
ANSWER_S = 120.0

PHONE = (320, 640)
DESK = (1280, 900)
OPEN_ALL = "for (const fold of document.querySelectorAll('details')) fold.open = true"
BEYOND = f"""
[...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll, .chart, .skip') && e.getBoundingClientRect().right > {PHONE[0]} + 1)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 60))
"""
"""What stands beyond the edge of a phone."""


class Browser:
    """One page of one browser."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._rest = b""
        self._number = 0
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.setBypassCSP", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers. Raises ``RuntimeError`` for what it refuses, ``TimeoutError`` where it says nothing."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        until = time.monotonic() + ANSWER_S
        while True:
            said = self._next(until)
            if said.get("id") == self._number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                answer: dict[str, Any] = said["result"]
                return answer

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._back], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._back, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("the browser says nothing")
            self._rest += part
        one, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(one)
        return said

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for. Raises ``RuntimeError`` for what it throws."""
        said = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise RuntimeError(str(said["exceptionDetails"]))
        return said["result"].get("value")

    def screen(self, width: int, height: int, *, dark: bool = False, media: str = "") -> None:
        """The size of the screen in CSS pixels, and what the page is told of its reader."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme)

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.as_uri())
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        self.settle()

    def settle(self) -> None:
        """Until what was asked for is laid out and painted."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60))))")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, as a person presses it; ``code`` is the one of Windows, ``text`` what it types."""
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def picture(self, to: Path, *, whole: bool = False) -> Path:
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        to.write_bytes(base64.b64decode(data))
        return to

    def pdf(self, to: Path) -> Path:
        to.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"]))
        return to


@contextmanager
def browser(chromium: str, folder: Path) -> Iterator[Browser]:
    """A browser that ends with the block. ``folder`` is where it keeps its profile."""
    command_end, to = os.pipe()
    back, answer_end = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (command_end, answer_end)]  # so that none of them is 3 or 4
    pipes = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
    argv = ["bash", "-c", pipes, chromium, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, pass_fds=ends)
    for end in (command_end, answer_end, *ends):
        os.close(end)
    try:
        yield Browser(to, back)
    finally:
        with suppress(OSError):
            os.close(to)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(back)
