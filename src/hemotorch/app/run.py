"""`hemotorch serve`: finds a port, prints the link, opens the browser, and serves until it is stopped."""

from __future__ import annotations

import re
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvicorn

from hemotorch.app.models import Models
from hemotorch.app.server import create_app, open_services
from hemotorch.app.settings import LOCK, AppSettings
from hemotorch.errors import InputError, RunError
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
        if settings.model:
            use_model(Models(settings.folder, services.database), settings.model)
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


def use_model(models: Models, model: str) -> None:
    """Outlines new studies with a model from now on.

    Args:
        models: of the workspace.
        model: a name that it knows, or a run folder, checkpoint or ONNX file, which is copied into the workspace.

    Raises:
        InputError: if there is no such model, or another one of its name.
    """
    path = Path(model)
    if not path.exists():
        models.use(model)
        return
    file = path
    if path.is_dir():
        candidates = [path / "best.onnx", path / "best.pt"]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            raise InputError("holds no trained network", path, "name a run folder with best.pt, or a model file")
        file = found[0]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (path if path.is_dir() else path.with_suffix("")).resolve().name)
    models.add(name.strip(".-") or "model", file, name, "given with --model")
    models.use(name.strip(".-") or "model")


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
