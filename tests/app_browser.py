"""The app in a real browser: its server in a process of its own, today's pages, Chromium without WebGL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser import program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
WEB = ROOT / "web"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-webgl", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
START_S = 120


def missing(reason: str) -> None:
    """Skips the test, or fails it if CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def build_pages() -> None:
    """Builds the pages if those in the package are not of today's sources."""
    sys.path.insert(0, str(ROOT))
    try:
        from hatch_build import MADE_FROM, STATIC, node, sources_digest
    finally:
        sys.path.remove(str(ROOT))
    digest, made_from = sources_digest(WEB), ROOT / STATIC / MADE_FROM
    if made_from.is_file() and made_from.read_text(encoding="utf-8").strip() == digest:
        return
    if not (WEB / "node_modules" / ".bin" / "vite").exists():
        missing("web/node_modules is missing: npm ci in web/")
    npm, environment = node()
    done = subprocess.run([*npm, "run", "build"], cwd=WEB, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made_from.write_text(digest + "\n", encoding="utf-8")


@dataclass
class AppServer:
    """A running `hemotorch serve`. url: without a path. log: what it printed, in a file."""

    folder: Path
    port: int
    process: subprocess.Popen[str]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text(encoding="utf-8").strip()

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """The JSON that a path below /api/v1 gives."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def until(self, path: str, true: Any, seconds: float = 240) -> Any:
        """Asks until the answer is as wanted; fails after so long."""
        end = time.monotonic() + seconds
        while True:
            answer = self.ask(path)
            if true(answer):
                return answer
            assert time.monotonic() < end, answer
            time.sleep(0.2)


@contextmanager
def app_server(folder: Path, *arguments: str, port: int = 0) -> Iterator[AppServer]:
    """`hemotorch serve FOLDER` on that port or a free one, with today's pages."""
    build_pages()
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    log = folder.with_name(f"{folder.name}.log")
    command = [sys.executable, "-m", "hemotorch.cli", "serve", str(folder), "--port", str(port), "--no-browser"]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen([*command, *arguments], stdout=out, stderr=subprocess.STDOUT, text=True)
    server = AppServer(folder, port, process, log)
    try:
        end = time.monotonic() + START_S
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@dataclass
class Visitor:
    """A browser that notes what its console says; `check` fails if that is an error or a report of the policy."""

    browser: Browser
    said: list[str] = field(default_factory=list)

    def page(
        self,
        server: AppServer,
        size: tuple[int, int] = (1280, 800),
        theme: str = "light",
        locale: str = "en-GB",
        token: str = "",
    ) -> Page:
        """A signed-in page of a reader of its own, on the worklist; with the server's token or another one."""
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,
            locale=locale,  # type: ignore[arg-type]
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda message: message.type == "error" and self.said.append(f"{message.text} {message.location}"),
        )
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('policy', event.blockedURI))"
        )
        page.goto(f"{server.url}/open?token={token or server.token}")
        page.wait_for_selector("h1")
        return page

    def check(self) -> None:
        """Fails if a console said anything since the last check."""
        said, self.said = self.said, []
        assert said == [], said


@contextmanager
def visitor() -> Iterator[Visitor]:
    """Chromium, without a GPU."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(FLAGS))
        try:
            yield Visitor(browser)
        finally:
            browser.close()


def drop(page: Page, *paths: Path) -> None:
    """Drops files and folders on the page, as from the machine's file manager."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})
    session.detach()


def axe(page: Page) -> list[str]:
    """What axe finds serious or critical on a page: rule, help, elements."""
    session = page.context.new_cdp_session(page)
    source = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        missing("web/node_modules is missing: npm ci in web/")
    # The policy refuses a script tag, and not what the debugger evaluates.
    session.send("Runtime.evaluate", {"expression": source.read_text(encoding="utf-8")})
    options = {"expression": "axe.run().then((found) => found.violations)", "awaitPromise": True, "returnByValue": True}
    found = session.send("Runtime.evaluate", options)["result"]["value"]
    session.detach()
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {rule['help']}: {[node['html'][:160] for node in rule['nodes'][:4]]}" for rule in serious]
