"""A headless Chromium, driven through its DevTools protocol over two pipes; no package is needed for that."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)
PATIENCE_S = 120.0


def find_chromium() -> str:
    """Return the browser; skip where a user has none, fail under CI."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    message = "no Chromium is installed, which the tests of pages need: apt-get install chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class Browser:
    """One tab of a browser; `problems` collects what its console complains of, `requests` what it asks for."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes, self._number = reads, writes, 0
        self._buffer = b""
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._writes, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            block = os.read(self._reads, 1 << 16)
            assert block, "Chromium ended"
            self._buffer += block
        text, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(text))

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.problems.append(json.dumps(parameters["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is, as JSON has it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < until, f"{expression} is not so after {PATIENCE_S:.0f} s"
            time.sleep(0.05)

    def centre(self, selector: str, across: float = 0.5, down: float = 0.5) -> dict[str, float]:
        """Scroll an element into view; return a point of it on the screen."""
        script = (
            "(() => { const e = document.querySelector(%s); e.scrollIntoView({block: 'center'});"
            " const b = e.getBoundingClientRect(); return {x: b.x, y: b.y, w: b.width, h: b.height}; })()"
        )
        box: dict[str, float] = self.value(script % json.dumps(selector))
        return {"x": box["x"] + across * box["w"], "y": box["y"] + down * box["h"]}

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Click as a mouse does."""
        point = self.centre(selector, across, down)
        for kind, buttons in (("mousePressed", 1), ("mouseReleased", 0)):
            self.call(
                "Input.dispatchMouseEvent", type=kind, button="left", buttons=buttons, clickCount=1, **point
            )

    def wheel(
        self, selector: str, down: float, across: float = 0.5, at: float = 0.5, *, modifiers: int = 0
    ) -> None:
        """Turn the wheel over a point of an element; `modifiers` as the protocol has them (2 Ctrl, 8 Shift)."""
        point = self.centre(selector, across, at)
        self.call(
            "Input.dispatchMouseEvent",
            type="mouseWheel",
            deltaX=0,
            deltaY=down,
            modifiers=modifiers,
            **point,
        )

    def drag(
        self, selector: str, start: tuple[float, float], stop: tuple[float, float], *, modifiers: int = 0
    ) -> None:
        """Drag from one point of an element to another, (across, down) as shares of it."""
        for kind, point, buttons in (
            ("mousePressed", start, 1),
            ("mouseMoved", start, 1),
            ("mouseMoved", stop, 1),
            ("mouseReleased", stop, 0),
        ):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                button="left",
                buttons=buttons,
                clickCount=1,
                modifiers=modifiers,
                **self.centre(selector, *point),
            )

    def press(self, key: str, code: int = 0, text: str = "", *, modifiers: int = 0) -> None:
        """Press a key; `code` is its virtual key code."""
        shared: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **shared)
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def look(self, *, dark: bool = False, width: int = 1200, height: int = 900) -> None:
        """Choose light or dark and the size of the window."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser with a fresh profile."""
    executable = find_chromium()
    ours_reads, theirs_writes = os.pipe()
    theirs_reads, ours_writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # the protocol reads from 3 and writes to 4
        script = f'exec "$0" "$@" 3<&{theirs_reads} 4>&{theirs_writes}'
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, executable, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_reads, theirs_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_reads)
        os.close(theirs_writes)
        try:
            yield Browser(ours_reads, ours_writes)
        finally:
            process.terminate()
            process.wait()
            os.close(ours_reads)
            os.close(ours_writes)
