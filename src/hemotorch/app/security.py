"""What each request must pass: a known Host, somebody who is known, and for changes a known Origin and the right to.

The answers of all routes get the same headers: a content security policy without any `unsafe-`, and no frames.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemotorch.app.refusals import Forbidden, Unknown, refusal_of, status_of
from hemotorch.app.schemas import Role
from hemotorch.app.sessions import Caller, Sessions
from hemotorch.app.settings import AppSettings
from hemotorch.errors import HemotorchError

API = "/api/"
_SAFE = ("GET", "HEAD", "OPTIONS")
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "font-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def cookie_name(settings: AppSettings) -> str:
    """Browsers keep cookies apart by host, but not by port."""
    return f"hemotorch-{settings.port}"


class Guard:
    """The outermost layer of the server."""

    def __init__(self, app: ASGIApp, settings: AppSettings, sessions: Sessions):
        self._app, self._settings, self._sessions = app, settings, sessions
        names = {*settings.public_hosts, settings.host, "localhost", socket.gethostname(), socket.getfqdn()}
        self._hosts = {name.casefold().rstrip(".") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith(API) and "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
            await send(message)

        try:
            self._check(scope)
        except HemotorchError as error:
            await _answer(error, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Raises Forbidden or Unknown; puts who asks into the request's state."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            todo = "open it by its own address, or start it with --public-host NAME"
            raise Forbidden("the server does not answer by this name", host[:100], todo)
        if not scope["path"].startswith(API):
            return
        caller = self._caller(scope, headers)
        if caller is None:
            todo = "open the link that `hemotorch serve` printed, or send the token as Authorization: Bearer"
            raise Unknown("you are not signed in", todo=todo)
        scope.setdefault("state", {})["caller"] = caller
        if scope["method"] in _SAFE:
            return
        if caller.role != Role.WRITE:
            raise Forbidden("the link that you opened lets you look only", todo="ask for the link that lets you write")
        self._check_origin(headers, host, caller)

    def _check_origin(self, headers: Headers, host: str, caller: Caller) -> None:
        """A page of another site must not make changes with this browser's cookie (CSRF)."""
        origin = headers.get("origin")
        if origin is None:
            if caller.cookie or (caller.named and headers.get("sec-fetch-site") not in (None, "same-origin", "none")):
                raise Forbidden("a change without an Origin", todo="send the token as Authorization: Bearer")
            return
        if urlsplit(origin).netloc.casefold() != host.casefold():
            raise Forbidden("the request comes from another site", origin[:100])

    def _is_own(self, host: str) -> bool:
        """Whether a Host is one that this server is reached by, so that no page of another name reaches it.

        Against DNS rebinding. An address in numbers is never the name of another page.
        """
        name = host.casefold()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name.rstrip(".") in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _caller(self, scope: Scope, headers: Headers) -> Caller | None:
        bearer = headers.get("authorization", "")
        kind, _, token = bearer.partition(" ")
        if kind.casefold() == "bearer":
            return self._sessions.of_token(token.strip())
        client = scope.get("client")
        from_proxy = client is not None and client[0] == self._settings.trusted_proxy
        if self._settings.user_header and from_proxy:
            user = headers.get(self._settings.user_header, "").strip()
            if user:
                return self._sessions.of_proxy(user[:80])
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == cookie_name(self._settings):
                return self._sessions.of_cookie(value)
        return None


async def _answer(error: HemotorchError, send: Send) -> None:
    body = json.dumps(refusal_of(error).model_dump()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status_of(error) == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
