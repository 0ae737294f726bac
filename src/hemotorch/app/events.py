"""What changed, as server-sent events: read from the database's log, so that other processes' changes are in it.

A client that comes back names the last event that it saw, and gets what it missed; if that is too long ago, "resync"
tells it to ask for everything anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from anyio import to_thread

from hemotorch.app.database import Database
from hemotorch.errors import HemotorchError

POLL_S = 0.25
ALIVE_S = 15.0  #: after which a line is sent if nothing happens: proxies close what is silent
MOST_WAITING = 500  #: events that a slow client may be behind
MOST_MISSED = 2000  #: events that are sent again to a client that comes back

#: JSON of a study, job or training by its id; None if it is gone.
Renderer = Callable[[str], str | None]


@dataclass(eq=False)
class _Client:
    queue: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    behind: bool = False


class EventStream:
    """Watches the log and tells all who listen."""

    def __init__(self, database: Database, renderers: dict[str, Renderer]):
        self._database = database
        self._renderers = renderers
        self._clients: set[_Client] = set()
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Watches until it is cancelled."""
        last = await to_thread.run_sync(self._newest)
        while True:
            await asyncio.sleep(POLL_S)
            if not self._clients:
                last = await to_thread.run_sync(self._newest)
                continue
            last, texts = await to_thread.run_sync(self._since, last)
            for client in self._clients:
                for text in texts:
                    try:
                        client.queue.put_nowait(text)
                    except asyncio.QueueFull:
                        client.behind = True
                        break

    def close(self) -> None:
        """Ends all streams, so that the server can stop."""
        self._closed.set()

    async def listen(self, last_seen: str) -> AsyncIterator[str]:
        """What is sent to one client.

        Args:
            last_seen: number of the last event that it saw, "" if it saw none.
        """
        client = _Client()
        self._clients.add(client)
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            # The first bytes tell the client that it is connected, whatever lies between.
            yield "retry: 2000\n\n"
            for text in await to_thread.run_sync(self._missed, last_seen):
                yield text
            while not closed.done():
                waiting = asyncio.ensure_future(client.queue.get())
                done, _ = await asyncio.wait({waiting, closed}, timeout=ALIVE_S, return_when="FIRST_COMPLETED")
                if waiting in done:
                    yield waiting.result()
                else:
                    waiting.cancel()
                    with suppress(asyncio.CancelledError):
                        await waiting
                    if not done:
                        yield ": alive\n\n"
                if client.behind and client.queue.empty():
                    client.behind = False
                    yield _event("resync", "{}", await to_thread.run_sync(self._newest))
        finally:
            closed.cancel()
            self._clients.discard(client)

    def _newest(self) -> int:
        row = self._database.row("SELECT coalesce(max(number), 0) AS number FROM change")
        return 0 if row is None else int(row["number"])

    def _missed(self, last_seen: str) -> list[str]:
        if not last_seen:
            return []
        newest = self._newest()
        resync = [_event("resync", "{}", newest)]
        if not (last_seen.isascii() and last_seen.isdigit()) or len(last_seen) > 18:
            return resync
        last = int(last_seen)
        row = self._database.row("SELECT coalesce(min(number), 1) AS number FROM change")
        oldest = 1 if row is None else int(row["number"])
        if last > newest or last < oldest - 1 or newest - last > MOST_MISSED:
            return resync
        return self._since(last)[1]

    def _since(self, last: int) -> tuple[int, list[str]]:
        """The number of the newest change, and events of all after `last`, the newest of each thing only."""
        rows = self._database.rows("SELECT * FROM change WHERE number > ? ORDER BY number", (last,))
        if not rows:
            return last, []
        newest = {(row["kind"], row["id"]): row["number"] for row in rows}
        texts = []
        for (kind, name), number in sorted(newest.items(), key=lambda item: item[1]):
            texts.append(_event(kind, self._render(kind, name), number))
        return rows[-1]["number"], texts

    def _render(self, kind: str, name: str) -> str:
        renderer = self._renderers.get(kind)
        rendered = None
        if renderer is not None:
            with suppress(HemotorchError):
                rendered = renderer(name)
        return rendered or json.dumps({"id": name, "deleted": renderer is not None})


def _event(kind: str, data: str, number: int) -> str:
    return f"id: {number}\nevent: {kind}\ndata: {data}\n\n"
