"""A real browser: the system's Chromium, driven by Playwright, drawing by software as machines without a GPU do."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SOFTWARE = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")


def chromium() -> str:
    """Path of the system's Chromium; the test is skipped where there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path is not None), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@contextmanager
def opened(size: tuple[int, int], *arguments: str) -> Iterator[BrowserContext]:
    """A headless browser without pages.

    Args:
        size: of its pages, ``(H, W)``.
        arguments: more of the command line.
    """
    from playwright.sync_api import sync_playwright

    height, width = size
    with sync_playwright() as tool:
        program = tool.chromium.launch(executable_path=chromium(), args=[*SOFTWARE, *arguments])
        yield program.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        program.close()


class Drawing:
    """A page that draws, and tells when it has drawn.

    Args:
        page: of the browser.
    """

    def __init__(self, page: Page) -> None:
        self._page, self.console = page, list[str]()
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        self._protocol = page.context.new_cdp_session(page)

    def opens(self, address: str) -> None:
        """Go to an address."""
        self._page.goto(address)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of Chromium's debugging protocol for the page."""
        return self._protocol.send(method, parameters)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        return self._page.evaluate(script)

    def wait(self, condition: str, seconds: float = 120.0) -> None:
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < until, f"{condition} did not come true; the page said: {self.console}"
            time.sleep(0.05)

    def screenshot(self) -> Float[Tensor, "3 h w"]:
        """What the page shows, colors in 0..1."""
        pixels = np.array(Image.open(io.BytesIO(self._page.screenshot())).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0
