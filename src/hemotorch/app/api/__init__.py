"""The routes of the REST interface, `/api/v1`. Each module has a `router`.

corrections  drafts, versions, comparisons and measurements
datasets     datasets of corrected studies
files        downloads of a study's files
folders      folders of the server: browsed, watched
jobs         the queue, and what is outlined
log          server-sent events, and the audit log
models       models, and which of them outlines new studies
pixels       HU, masks and probabilities as bytes
recipes      the recipes that come with hemotorch, and what one may hold
services     what all routes share
session      who is looking, and what this server can do
studies      the worklist and a study's page
trainings    teaching a model with corrected studies
uploads      uploads and imports
"""

from __future__ import annotations

from fastapi import APIRouter

from hemotorch.app.api import (
    corrections,
    datasets,
    files,
    folders,
    jobs,
    log,
    models,
    pixels,
    recipes,
    session,
    studies,
    trainings,
    uploads,
)

ROUTERS: tuple[APIRouter, ...] = (
    session.router,
    log.router,
    studies.router,
    pixels.router,
    files.router,
    uploads.router,
    folders.router,
    jobs.router,
    corrections.router,
    datasets.router,
    models.router,
    recipes.router,
    trainings.router,
)
