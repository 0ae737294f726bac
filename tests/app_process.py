"""A server of `hemotorch serve` in a process of its own, and a client that knows its tokens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

API = "/api/v1"


@dataclass
class Running:
    """A server that runs. url: without a path."""

    process: subprocess.Popen[str]
    folder: Path
    url: str
    token: str
    read_token: str

    def client(self, token: str | None = "", **headers: str) -> httpx.Client:
        """A client of the REST interface. token: "" for the one that writes, None for none."""
        sent = dict(headers)
        if token is not None:
            sent["authorization"] = f"Bearer {token or self.token}"
        return httpx.Client(base_url=self.url + API, headers=sent, timeout=60)

    def wait_for_job(self, client: httpx.Client, job: str, seconds: float = 240) -> dict[str, object]:
        """Waits for a job's end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for shown in client.get("/jobs").json()["jobs"]:
                if shown["id"] == job and shown["state"] not in ("waiting", "running"):
                    found: dict[str, object] = shown
                    return found
            time.sleep(0.1)
        raise AssertionError(f"{job} did not end within {seconds} s")


@contextmanager
def running(folder: Path, *options: str, workers: bool = True) -> Iterator[Running]:
    """Starts a server, and ends it."""
    server = start(folder, *options, workers=workers)
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            server.process.kill()
            raise


def start(folder: Path, *options: str, workers: bool = True) -> Running:
    """Starts a server on a free port, and waits until it answers."""
    command = [sys.executable, __file__, *(["--no-workers"] if not workers else [])]
    command += ["serve", str(folder), "--port", "0", "--no-browser", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("open "):
            url = line.split()[1].partition("/open?")[0]
            break
    else:
        raise AssertionError("the server did not start")
    tokens = [(folder / name).read_text().strip() for name in ("token", "read-token")]
    for _ in range(300):
        try:
            httpx.get(url, timeout=5)
            break
        except httpx.ConnectError:
            time.sleep(0.1)
    return Running(process, folder, url, *tokens)


def main() -> int:
    """As the command line, but that the server may be told to start no workers."""
    from dataclasses import replace

    from hemotorch import cli
    from hemotorch.app import run

    if sys.argv[1] == "--no-workers":
        sys.argv.pop(1)
        serve = run.serve
        run.serve = lambda settings, *rest: serve(replace(settings, workers=False), *rest)  # type: ignore[assignment]
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
