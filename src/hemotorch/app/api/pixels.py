"""Voxels as bytes: HU, masks, probabilities, from files that are mapped into memory."""

from __future__ import annotations

import gzip
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from hemotorch.app.api.services import CallerDep, Services, ServicesDep, StudyId
from hemotorch.app.api.studies import visible
from hemotorch.app.layers import LAYER, layer_folder, read_layers, read_mask, read_probability
from hemotorch.app.refusals import Missing
from hemotorch.app.sessions import Caller
from hemotorch.app.settings import LOOPBACK
from hemotorch.app.stored_scan import HU, mapped
from hemotorch.errors import InputError

router = APIRouter(tags=["pixels"])
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}},
    304: {"description": "as the client has it"},
}
_PIECE = 2**20  #: bytes that are sent at once
_MOST_OPEN = 64
_IMMUTABLE = "private, max-age=31536000, immutable"

First = Annotated[int, Query(ge=0, le=2**31)]
Last = Annotated[int | None, Query(ge=0, le=2**31, description="the last slice; without it, all of them")]


class OpenMaps:
    """The HU of the studies that were looked at last. They never change."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def hu(self, folder: Path) -> np.ndarray:
        """(slices, rows, columns) int16. Raises InputError if there is none."""
        with self._lock:
            if (known := self._open.get(folder)) is not None and folder.is_dir():
                self._open.move_to_end(folder)
                return known
        array = mapped(folder / HU)
        with self._lock:
            self._open[folder] = array
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return array


_maps = OpenMaps()


@router.get("/studies/{study}/hu", response_class=Response, responses=BYTES)
def hu(
    study: StudyId, request: Request, services: ServicesDep, caller: CallerDep, first: First = 0, last: Last = None
) -> Response:
    """HU of slices first to last, int16, little-endian, as (slices, rows, columns)."""
    folder = services.library.folder(study)
    if not (folder / HU).is_file():
        raise Missing("there is no such study", study)
    services.audit.look(caller.user, study)
    # A study's HU never change: its id stands for them.
    return _slices(request, _maps.hu(folder), "<i2", study, first, last, immutable=True)


@router.get("/studies/{study}/mask/{layer}", response_class=Response, responses=BYTES)
def mask(
    study: StudyId,
    layer: str,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    first: First = 0,
    last: Last = None,
    revision: Annotated[str, Query(max_length=40, description="the study's; the answer may then be kept")] = "",
) -> Response:
    """Codes of a layer's mask, uint8: 0 nothing, 1 to 5 the types, 6 bleeding of no known type."""
    folder = services.library.folder(study)
    time = _seen(services, caller, study, layer)
    array = read_mask(folder, layer)
    return _slices(request, array, "u1", f"{study}/{layer}/{time}", first, last, immutable=bool(revision))


@router.get("/studies/{study}/probability/{layer}", response_class=Response, responses=BYTES)
def probability(
    study: StudyId,
    layer: str,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    first: First = 0,
    last: Last = None,
    revision: Annotated[str, Query(max_length=40, description="the study's; the answer may then be kept")] = "",
) -> Response:
    """Probability of bleeding, uint8: 255 is certain."""
    folder = services.library.folder(study)
    time = _seen(services, caller, study, layer)
    array = read_probability(folder, layer)
    return _slices(request, array, "u1", f"{study}/{layer}/{time}/p", first, last, immutable=bool(revision))


def _seen(services: Services, caller: Caller, study: str, layer: str) -> str:
    """When a layer that the caller may see was made. Raises Missing for any other."""
    folder = services.library.folder(study)
    record = layer_folder(folder, layer) / LAYER
    hidden = caller.blind and layer not in {entry.layer.id for entry in visible(read_layers(folder), caller)}
    if hidden or not record.is_file():
        raise Missing("there is no such layer", layer[:60])
    services.audit.look(caller.user, study)
    return str(record.stat().st_mtime_ns)  # its record is written last, and anew if the layer changes


def _slices(
    request: Request, array: np.ndarray, dtype: str, tag: str, first: int, last: int | None, immutable: bool
) -> Response:
    """Some slices of an array, or 304 if the client has them.

    Args:
        request: whose headers say what the client has and takes.
        array: (slices, rows, columns).
        dtype: as it is sent.
        tag: what the array is known by, another one if it changes.
        first, last: slices; None for the last one.
        immutable: whether the client may keep the answer without asking again.
    """
    end = len(array) if last is None else last + 1
    if not first < end <= len(array):
        raise InputError(f"there are slices 0 to {len(array) - 1}", f"first={first}, last={end - 1}")
    packs = _may_pack(request)
    etag = f'"{tag}/{first}-{end}{"/gz" if packs else ""}"'
    headers = {"etag": etag, "cache-control": _IMMUTABLE if immutable else "private, no-cache"}
    headers["vary"] = "accept-encoding"
    if etag in [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    chosen = array[first:end]
    if chosen.dtype != np.dtype(dtype):
        chosen = chosen.astype(dtype)
    flat = np.ascontiguousarray(chosen).data.cast("B")
    headers["x-shape"] = ",".join(map(str, chosen.shape))
    if packs:
        packed = gzip.compress(flat, compresslevel=1)
        headers["content-encoding"] = "gzip"
        return Response(packed, media_type="application/octet-stream", headers=headers)
    headers["content-length"] = str(len(flat))
    return StreamingResponse(_pieces(flat), media_type="application/octet-stream", headers=headers)


def _may_pack(request: Request) -> bool:
    """Whether to send gzip: not to this machine itself, where packing takes longer than sending."""
    client = request.client
    local = client is not None and client.host in LOOPBACK
    return not local and "gzip" in request.headers.get("accept-encoding", "")


def _pieces(flat: memoryview) -> Iterator[bytes]:
    for start in range(0, len(flat), _PIECE):
        yield bytes(flat[start : start + _PIECE])
