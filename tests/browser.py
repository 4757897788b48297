"""A real browser, driven through Chromium's debugging protocol over two pipes: no driver, no network, no package."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Path of the system's Chromium; the test is skipped where there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path is not None), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


class Browser:
    """A headless browser with one page; a context manager.

    Args:
        folder: of its profile.
        size: of the window, ``(H, W)``.
        arguments: more of the command line.
    """

    def __init__(self, folder: Path, size: tuple[int, int], *arguments: str) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def arrange() -> None:  # the browser reads from descriptor 3 and writes to 4
            inward, outward = os.dup(to_browser), os.dup(from_browser)
            os.dup2(inward, 3)
            os.dup2(outward, 4)

        command = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--remote-debugging-pipe"]
        command += [
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--ignore-gpu-blocklist",
            "--hide-scrollbars",
        ]
        command += [f"--user-data-dir={folder}", f"--window-size={size[1]},{size[0]}", "--no-first-run", *arguments]
        self._process = subprocess.Popen(
            [*command, "about:blank"], pass_fds=(3, 4), preexec_fn=arrange, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._next, self._left, self.console = 0, b"", list[str]()
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        height, width = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for the page."""
        return self._call(method, parameters, self._session)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str, seconds: float = 120.0) -> None:
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < until, f"{condition} did not come true; the page said: {self.console}"
            time.sleep(0.05)

    def screenshot(self) -> Float[Tensor, "3 h w"]:
        """What the page shows, colors in 0..1."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._next += 1
        message = {"id": self._next, "method": method, "params": parameters}
        message |= {} if session is None else {"sessionId": session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 120.0
        while True:
            answer = self._message(until)
            if answer.get("id") == self._next:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.console.append(json.dumps(answer["params"])[:500])

    def _message(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0.0))
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)
