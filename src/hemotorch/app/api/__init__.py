"""The routes of the REST interface, `/api/v1`. Each module has a `router`.

files     downloads of a study's files
folders   folders of the server: browsed, watched
log       server-sent events, and the audit log
pixels    HU, masks and probabilities as bytes
services  what all routes share
session   who is looking, and what this server can do
studies   the worklist and a study's page
uploads   uploads and imports
"""

from __future__ import annotations

from fastapi import APIRouter

from hemotorch.app.api import files, folders, log, pixels, session, studies, uploads

ROUTERS: tuple[APIRouter, ...] = (
    session.router,
    log.router,
    studies.router,
    pixels.router,
    files.router,
    uploads.router,
    folders.router,
)
