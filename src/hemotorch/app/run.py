"""`hemotorch serve`: finds a port, prints the link, opens the browser, and serves until it is stopped."""

from __future__ import annotations

import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import replace

import uvicorn

from hemotorch.app.server import create_app, open_services
from hemotorch.app.settings import LOCK, AppSettings
from hemotorch.errors import RunError
from hemotorch.system.files import exclusive

_MORE_PORTS = 20  #: that are tried if the one that was asked for is taken
_LINGER_S = 2  #: that requests have to end when the server stops


class _Server(uvicorn.Server):
    """Ends the streams of events when it is to stop: they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]):
        super().__init__(config)
        self._on_exit = on_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but for the streams."""
        self._on_exit()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket: of this port, or of one of the next ones if it is taken. Raises RunError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + _MORE_PORTS, 65536)) if port else (0,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            last = error
    raise RunError(f"cannot listen there ({last.strerror})", f"{host}:{port}", "choose another --port or --host")


def serve(settings: AppSettings, say: Callable[[str], None], open_browser: bool) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        settings: with the port that is asked for.
        say: prints a line.
        open_browser: whether to open the link here.

    Raises:
        RunError: if no port is free, or another server has the workspace.
    """
    busy = RunError("another server has this workspace", settings.folder, "use that one, or stop it")
    with exclusive(settings.folder / LOCK, busy):
        listener = bind(settings.host, settings.port)
        port = listener.getsockname()[1]
        if settings.port and port != settings.port:
            say(f"port {settings.port} is taken, {port} is used")
        settings = replace(settings, port=port)
        services = open_services(settings)
        config = uvicorn.Config(
            create_app(services),
            access_log=False,  # it would hold the token of the link
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_LINGER_S,
            timeout_keep_alive=30,
        )
        server = _Server(config, services.events.close)
        link = f"{address(settings)}/open?token={settings.token}"
        say(f"open {link}")
        say(f"to look only: {address(settings)}/open?token={settings.read_token}")
        say("Ctrl-C stops the server; what is being outlined goes on at the next start")
        if open_browser:
            threading.Thread(target=_open_when_ready, args=(server, link), daemon=True).start()
        server.run(sockets=[listener])


def address(settings: AppSettings) -> str:
    """Where the server is reached."""
    host = settings.public_hosts[0] if settings.public_hosts else settings.host
    if settings.host in ("0.0.0.0", "::") and not settings.public_hosts:
        host = socket.gethostname()
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _open_when_ready(server: uvicorn.Server, link: str) -> None:
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.05)
    webbrowser.open(link)
