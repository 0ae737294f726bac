"""The server: routes, pages, sign-in, and what goes on beside the requests."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException

from hemotorch import NOTICE, __version__
from hemotorch.app import audit, sessions, uploads, watch
from hemotorch.app.api import ROUTERS
from hemotorch.app.api.services import Services
from hemotorch.app.api.uploads import import_folder
from hemotorch.app.audit import AuditLog
from hemotorch.app.database import Database
from hemotorch.app.events import EventStream
from hemotorch.app.refusals import database_refusal, refusal_of, status_of
from hemotorch.app.schemas import Refusal, Watch
from hemotorch.app.security import Guard, cookie_name
from hemotorch.app.sessions import Sessions
from hemotorch.app.settings import AppSettings
from hemotorch.app.supervisor import Supervisor
from hemotorch.app.teach import show_training
from hemotorch.app.uploads import Uploads
from hemotorch.app.watch import Watches
from hemotorch.app.worklist import Worklist
from hemotorch.app.workspace import Workspace
from hemotorch.errors import HemotorchError
from hemotorch.system.files import disk_error

API = "/api/v1"
STATIC = Path(__file__).parent / "static"
TABLES = (audit.TABLES, sessions.TABLES, uploads.TABLES, watch.TABLES)
_HOUSEKEEPING_S = 2.0
_SIGNED_IN_S = 365 * 86400


def open_services(settings: AppSettings) -> Services:
    """Opens the workspace and puts right what a killed server left. Raises RunError."""
    Database(settings.folder, *TABLES).close()
    workspace = Workspace(settings.folder)
    database, library = workspace.database, workspace.library
    library.sweep()
    workspace.versions.recover()
    received = Uploads(settings.folder, database, settings)
    received.recover()
    worklist = Worklist(database, settings.show_patient)

    def study(name: str) -> str | None:
        summary = worklist.one(name)
        return None if summary is None else summary.model_dump_json()

    def job(name: str) -> str | None:
        return workspace.queue.get(name).model_dump_json()

    def training(name: str) -> str | None:
        return show_training(workspace, name).model_dump_json()

    def import_entry(entry: Path) -> None:
        import_folder(workspace.queue, entry, predict=True, user="")

    services = Services(
        settings=settings,
        workspace=workspace,
        worklist=worklist,
        sessions=Sessions(database, settings),
        audit=AuditLog(database),
        uploads=received,
        events=EventStream(database, {"study": study, "job": job, "training": training}),
        watches=Watches(database, import_entry),
    )
    for folder in settings.watched:
        services.watches.add(Watch(folder=str(folder)))
    return services


def create_app(services: Services) -> FastAPI:
    """The application, for uvicorn or a test."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        threads = [
            threading.Thread(target=services.watches.run, args=(stop,), name="watches", daemon=True),
            threading.Thread(target=_keep_house, args=(services, stop), name="housekeeping", daemon=True),
        ]
        for thread in threads:
            thread.start()
        supervisor = Supervisor(services.workspace) if services.settings.workers else None
        if supervisor is not None:
            supervisor.start()
        task = asyncio.create_task(services.events.run())
        try:
            yield
        finally:
            stop.set()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if supervisor is not None:
                await asyncio.to_thread(supervisor.stop)
            for thread in threads:
                await asyncio.to_thread(thread.join, 10)

    app = FastAPI(
        title="hemotorch",
        version=__version__,
        description=NOTICE,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its page loads a script from a CDN
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"model": Refusal, "description": "why not"}},
    )
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router, prefix=API)
    _handle_errors(app)
    _serve_pages(app, services)
    app.add_middleware(Guard, settings=services.settings, sessions=services.sessions)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Each error as a `Refusal`."""

    def answer(error: HemotorchError) -> JSONResponse:
        return JSONResponse(refusal_of(error).model_dump(), status_of(error))

    @app.exception_handler(HemotorchError)
    def explained_error(request: Request, error: HemotorchError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(sqlite3.Error)
    def failed_database(request: Request, error: sqlite3.Error) -> JSONResponse:
        return answer(database_refusal(error))

    @app.exception_handler(OSError)
    def failed_disk(request: Request, error: OSError) -> JSONResponse:
        known = disk_error(error, "the workspace")
        if known is None:
            raise error
        return JSONResponse(refusal_of(known).model_dump(), 507)

    @app.exception_handler(RequestValidationError)
    def wrong_request(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse(Refusal(what=f"cannot be used: {first['msg']}", where=where[:200]).model_dump(), 422)

    @app.exception_handler(HTTPException)
    def no_such_route(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(Refusal(what=str(error.detail)).model_dump(), error.status_code, error.headers)


def _serve_pages(app: FastAPI, services: Services) -> None:
    """The pages, and the link that signs in."""
    settings = services.settings

    @app.get("/open", include_in_schema=False)
    def sign_in(request: Request, token: str = "") -> Response:
        """Takes the token out of the address and into a cookie."""
        secret = services.sessions.begin(token)
        if secret is None:
            return PlainTextResponse("this link is not valid any more: take the one that the server printed", 401)
        response = RedirectResponse("/", 303)
        by_proxy = request.client is not None and request.client.host == settings.trusted_proxy
        secure = by_proxy and request.headers.get("x-forwarded-proto") == "https"
        name = cookie_name(settings)
        response.set_cookie(name, secret, max_age=_SIGNED_IN_S, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str) -> Response:
        """A file of the pages, or the page itself: which of its views is shown, its script knows."""
        if path.startswith("api/"):
            raise HTTPException(404, "there is no such route")
        index = STATIC / "index.html"
        if not index.is_file():
            text = "the pages were not built when hemotorch was installed: run `python hatch_build.py` in a checkout"
            return PlainTextResponse(text, 503)
        file = (STATIC / path).resolve()
        if path and file.is_relative_to(STATIC.resolve()) and file.is_file():
            # Vite puts a digest of the content into the names of what is in assets/.
            kept = "max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
            return FileResponse(file, headers={"cache-control": kept})
        return FileResponse(index, headers={"cache-control": "no-cache"})


def _keep_house(services: Services, stop: threading.Event) -> None:
    """Removes the files of uploads whose import is done: the studies have them."""
    query = "SELECT batch.id FROM batch JOIN job ON job.id = batch.job WHERE batch.imported = 0 AND job.state = 'done'"
    while not stop.wait(_HOUSEKEEPING_S):
        with suppress(sqlite3.Error, OSError):
            for row in services.database.rows(query):
                services.uploads.imported(row["id"])
