"""Uploads: resumed, repeated, damaged, too large, to places where they do not belong, on a full disk, and killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import resource
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from app_process import API, Running, running, start
from hemotorch.app.api.services import Services
from hemotorch.app.layers import write_layer
from hemotorch.app.server import create_app, open_services
from hemotorch.app.settings import AppSettings, open_workspace
from hemotorch.app.uploads import safe_path
from hemotorch.errors import InputError
from hemotorch.inference.scan_files import ScanFiles
from hemotorch.io import nifti
from hemotorch.scan import even_scan

TOKEN = "a-token-that-writes-0123456789"
READ = "a-token-that-reads-0123456789"
CONTENT = bytes(range(256)) * 4000  # 1.02 MB


def opened(folder: Path, **settings: Any) -> Services:
    return open_services(AppSettings(open_workspace(folder), TOKEN, READ, workers=False, **settings))


class Local:
    """Requests to a server in this process, without a network. client: the address that they seem to come from."""

    def __init__(self, services: Services, client: str = "127.0.0.1", **headers: str):
        self._app = create_app(services)
        self._client = (client, 1)
        self._headers = {"authorization": f"Bearer {TOKEN}", "host": "localhost", **headers}

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=self._client)
            headers = {**self._headers, **options.pop("headers", {})}
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost" + API) as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(ask())

    def put(self, path: str, piece: Any, offset: int = 0, total: int | None = None, sha256: str = "") -> httpx.Response:
        options = {"offset": offset, "bytes": len(piece) if total is None else total}
        headers = {"x-content-sha256": sha256} if sha256 else {}
        return self("PUT", f"/uploads/{path}", params=options, content=piece, headers=headers)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return opened(tmp_path / "app")


@pytest.fixture
def local(services: Services) -> Local:
    return Local(services)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_arrives_in_pieces(local: Local, services: Services) -> None:
    first = local.put("batch-0001/a/b.dcm", CONTENT[:1000], 0, len(CONTENT)).json()
    assert (first["offset"], first["done"]) == (1000, False)
    assert local("POST", "/imports", json={"batch": "batch-0001"}).status_code == 409  # not whole
    too_far = local.put("batch-0001/a/b.dcm", CONTENT[2000:], 2000, len(CONTENT))
    assert too_far.status_code == 409
    assert "byte 1000" in too_far.json()["todo"]
    again = local.put("batch-0001/a/b.dcm", CONTENT[500:], 500, len(CONTENT), digest(CONTENT)).json()
    assert (again["offset"], again["done"], again["sha256"]) == (len(CONTENT), True, digest(CONTENT))
    assert (services.uploads.files_folder("batch-0001") / "a" / "b.dcm").read_bytes() == CONTENT
    repeated = local.put("batch-0001/a/b.dcm", CONTENT)
    assert (repeated.status_code, repeated.json()) == (200, again)
    assert local.put("batch-0001/a/b.dcm", CONTENT, sha256=digest(b"")).status_code == 409
    assert local.put("batch-0001/a/b.dcm", b"x").status_code == 409  # another length
    assert local("GET", "/uploads/batch-0001").json()["files"] == [again]
    assert local.put("batch-0001/empty", b"").json()["done"] is True
    assert local("DELETE", "/uploads/batch-0001").status_code == 204
    assert local("GET", "/uploads/batch-0001").status_code == 404
    assert not services.uploads.files_folder("batch-0001").exists()


def test_a_damaged_file_is_sent_again(local: Local, services: Services) -> None:
    damaged = local.put("batch-0001/x", CONTENT, sha256=digest(b"other"))
    assert damaged.status_code == 422
    assert "damaged" in damaged.json()["what"]
    (state,) = local("GET", "/uploads/batch-0001").json()["files"]
    assert (state["offset"], state["done"]) == (0, False)
    assert local.put("batch-0001/x", CONTENT, sha256=digest(CONTENT)).json()["done"] is True


def test_a_file_and_a_folder_of_one_name(local: Local) -> None:
    assert local.put("batch-0001/a", b"1").status_code == 200
    assert local.put("batch-0001/a/b", b"1").status_code == 409


@pytest.mark.parametrize(
    "path",
    ["..", "a/../b", "../../etc/passwd", "/etc/passwd", "a//b", "a/", ".", "a/./b", "~/x", "C:/x", "a\\..\\b",
     "nul", "a/CON", "com1.txt", "x\0y", "a\nb", "a. ", "b ", "a" * 250, "/".join("a" * 40), "a\u202eb", "x" * 900],
)  # fmt: skip
def test_no_file_leaves_its_folder(local: Local, services: Services, path: str) -> None:
    with pytest.raises(InputError):
        safe_path(path)
    answer = local(
        "PUT",
        f"/uploads/batch-0001/{quote(path, safe='').replace('.', '%2E')}",
        params={"offset": 0, "bytes": 1},
        content=b"x",
    )
    assert answer.status_code in (404, 405, 422), path
    folder = services.settings.folder
    assert [entry for entry in folder.rglob("*") if entry.is_file() and not entry.name.startswith("app.sqlite")] == []


@pytest.mark.parametrize("path", ["IM0001", "a/b/c.dcm", "Ärzte/München 1.nii.gz", "名前.dcm", ".hidden", "a..b"])
def test_usual_names_are_kept(local: Local, services: Services, path: str) -> None:
    assert local.put(f"batch-0001/{path}", b"x").json()["path"] == path
    assert (services.uploads.files_folder("batch-0001") / path).read_bytes() == b"x"


@pytest.mark.parametrize("batch", ["short", "../../x/y", "a" * 65, "-batch-01", "batch.0001", "%2e%2e%2fabcdef"])
def test_a_batch_is_no_path(local: Local, batch: str) -> None:
    assert local.put(f"{batch}/x", b"x").status_code in (404, 405, 422)


def test_limits_hold_while_it_streams(tmp_path: Path) -> None:
    services = opened(tmp_path / "app", max_file_mb=1, max_batch_mb=2, max_batch_files=3)
    local = Local(services)
    assert local.put("batch-0001/large", b"", 0, 2 * 10**6).status_code == 413
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10**5
            yield bytes(10**5)

    answer = local("PUT", "/uploads/batch-0001/x", params={"offset": 0, "bytes": 10**6}, content=endless())
    assert answer.status_code == 413
    part = list((tmp_path / "app" / "uploads" / "batch-0001" / "parts").iterdir())
    assert sum(path.stat().st_size for path in part) <= 10**6
    assert local.put("batch-0001/y", b"", 0, 10**6).status_code == 200
    assert local.put("batch-0001/z", b"", 0, 10**6).status_code == 413  # 3 MB in all
    assert local.put("batch-0001/1", b"1").status_code == 413


def test_a_disk_without_room_is_said(tmp_path: Path) -> None:
    local = Local(opened(tmp_path / "app", spare_mb=10**9))
    answer = local.put("batch-0001/x", b"x")
    assert answer.status_code == 507
    assert "MB are free" in answer.json()["what"]


def test_a_disk_that_fills_is_said_and_loses_nothing(tmp_path: Path) -> None:
    local = Local(opened(tmp_path / "app"))
    whole = CONTENT * 8
    assert local.put("batch-0001/x", whole[: 10**6], 0, len(whole)).json()["offset"] == 10**6
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 10**6, before[1]))
    try:
        answer = local.put("batch-0001/x", whole[10**6 :], 10**6, len(whole))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.status_code == 507
    assert "free some space" in answer.json()["todo"]
    (state,) = local("GET", "/uploads/batch-0001").json()["files"]
    assert state["offset"] >= 10**6
    rest = whole[state["offset"] :]
    end = local.put("batch-0001/x", rest, state["offset"], len(whole), digest(whole))
    assert end.json()["done"] is True


def test_what_is_sent_elsewhere_is_packed(tmp_path: Path) -> None:
    services = opened(tmp_path / "app")
    path = tmp_path / "scan.nii.gz"
    nifti.write_scan(even_scan(np.full((3, 4, 5), -1000, np.int16), 1.0, 5.0), path)
    files = ScanFiles((path,), path)
    study = services.library.add(files.read(), files).id
    near, far = Local(services), Local(services, "10.0.0.5")
    plain, packed = near("GET", f"/studies/{study}/hu"), far("GET", f"/studies/{study}/hu")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.content == packed.content == np.full(60, -1000, "<i2").tobytes()
    assert plain.headers["etag"] != packed.headers["etag"]
    asked = far("GET", f"/studies/{study}/hu", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in asked.headers


def test_only_files_of_predictions_are_downloaded(tmp_path: Path) -> None:
    services = opened(tmp_path / "app")
    scan = even_scan(np.full((3, 4, 5), -1000, np.int16), 1.0, 5.0)
    path = tmp_path / "scan.nii.gz"
    nifti.write_scan(scan, path)
    files = ScanFiles((path,), path)
    study = services.library.add(files.read(), files).id
    folder = services.library.folder(study)
    write_layer(folder, "prediction:default", scan, np.ones(scan.shape, np.uint8), title="default", typed=False)
    nifti.write_mask(scan, np.ones(scan.shape, np.uint8), folder / "predictions" / "default" / f"{study}_mask.nii.gz")
    local = Local(services)
    (file,) = local("GET", f"/studies/{study}").json()["files"]
    answer = local("GET", file["url"].removeprefix(API))
    assert answer.content == (folder / "predictions" / "default" / file["name"]).read_bytes()
    assert answer.headers["content-disposition"].startswith("attachment")
    names = ("default/mask.npy", "default/layer.json", "default/none", "default/..%2F..%2Fscan.json", "..%2F/hu.npy")
    for hidden in names:
        assert local("GET", f"/studies/{study}/files/{hidden}").status_code in (404, 422), hidden
    exported = [line["detail"] for line in local("GET", "/audit").json()["lines"] if line["action"] == "exported"]
    assert exported == [file["name"]]


def test_a_trusted_proxy_names_the_user(tmp_path: Path) -> None:
    services = opened(tmp_path / "app", user_header="X-User", trusted_proxy="10.0.0.9")
    near, far = Local(services), Local(services, "10.0.0.5")
    assert near("GET", "/session").status_code == far("GET", "/session").status_code == 200
    proxy = Local(services, "10.0.0.9", authorization="", **{"x-user": "dr.b"})
    shown = proxy("GET", "/session").json()
    assert (shown["user"], shown["role"]) == ("dr.b", "write")
    assert proxy("PATCH", "/session", json={"user": "somebody"}).status_code == 409
    assert proxy("PATCH", "/session", json={"blind": True}).json()["blind"] is True
    assert proxy("GET", "/session", headers={"x-user": ""}).status_code == 401
    liar = Local(services, "10.0.0.5", authorization="", **{"x-user": "dr.b"})
    assert liar("GET", "/session").status_code == 401


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("served") / "app") as server:
        yield server


def imported(server: Running, batch: str, files: dict[str, bytes]) -> dict[str, Any]:
    """The end of the job that imports these files."""
    with server.client() as client:
        for path, content in files.items():
            options = {"offset": 0, "bytes": len(content)}
            assert client.put(f"/uploads/{batch}/{path}", params=options, content=content).status_code == 200
        job = client.post("/imports", json={"batch": batch, "predict": False}).json()["id"]
        assert client.post("/imports", json={"batch": batch}).json()["id"] == job  # asked twice, done once
        with client.stream("GET", "/events", headers={"last-event-id": "0"}) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data: "):
                    continue
                data: dict[str, Any] = json.loads(line.removeprefix("data: "))
                if data.get("id") == job and data["state"] not in ("waiting", "running"):
                    return data
    raise AssertionError("the stream ended")


def test_a_zip_bomb_and_files_that_are_none_are_refused(server: Running, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        preamble = bytes(128) + b"DICM"
        archive.writestr("IM1", preamble + bytes(7 * 10**8))
        archive.writestr("../../escaped.dcm", preamble)
    files = {"bomb.zip": bomb.read_bytes(), "text.nii.gz": b"no image", "notes.txt": b"hello", "fake.zip": b"PK\3\4no"}
    end = imported(server, "batch-bomb", files)
    assert end["state"] in ("done", "failed")
    said = json.dumps(end)
    assert "bomb.zip" in said
    assert "text.nii.gz" in said
    assert str(server.folder) not in said  # the server's own folders are not the client's
    with server.client() as client:
        assert client.get("/studies").json()["total"] == 0
    assert not list(server.folder.rglob("escaped.dcm"))
    assert not list((server.folder / "studies").iterdir())


def test_a_real_study_as_a_zip(server: Running, shared_data: Path, tmp_path: Path) -> None:
    packed = tmp_path / "cd.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((shared_data / "head-ct-slab" / "dicom").rglob("*")):
            if path.is_file():
                archive.write(path, f"DICOM/{path.name}")
    end = imported(server, "batch-real", {"cd.zip": packed.read_bytes()})
    assert (end["state"], end["problem"]) == ("done", None)
    with server.client() as client:
        (study,) = client.get("/studies").json()["studies"]
        assert study["source"] == "DICOM"
        assert study["name"] == study["date"] == ""
        client.delete(f"/studies/{study['id']}")
        assert client.get("/studies").json()["total"] == 0


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_nothing_acknowledged_is_lost_if_the_server_is_killed(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    content = chance.randbytes(3_000_000)
    folder = tmp_path / "app"
    acknowledged, done = 0, 0
    for number in range(kills + 1):
        server = start(folder, workers=False)
        try:
            with server.client() as client:
                if number:
                    files = client.get("/uploads/batch-kill").json()["files"]
                    assert sum(file["done"] for file in files) >= done
                    state = next(file for file in files if file["path"] == f"file-{done}") if acknowledged else None
                    assert state is None or state["offset"] >= acknowledged
                    acknowledged = 0 if state is None or state["done"] else state["offset"]
                    done = sum(file["done"] for file in files)
                deaths = chance.randint(1, 6) if number < kills else 10**9
                while done < kills + 2:
                    size = chance.randint(1, 700_000)
                    piece = content[acknowledged : acknowledged + size]
                    options = {"offset": acknowledged, "bytes": len(content)}
                    if deaths == 0:
                        part = iter([piece[: size // 2], b""])

                        def dying(part: Iterator[bytes] = part, process: Any = server.process) -> Iterator[bytes]:
                            yield next(part)
                            process.kill()
                            yield next(part)

                        with pytest.raises(httpx.TransportError):
                            client.put(f"/uploads/batch-kill/file-{done}", params=options, content=dying())
                        break
                    deaths -= 1
                    state = client.put(f"/uploads/batch-kill/file-{done}", params=options, content=piece).json()
                    acknowledged = state["offset"]
                    if state["done"]:
                        assert state["sha256"] == digest(content)
                        done, acknowledged = done + 1, 0
        finally:
            server.process.kill()
            server.process.wait()
    files_folder = folder / "uploads" / "batch-kill" / "files"
    assert sorted(os.listdir(files_folder)) == sorted(f"file-{number}" for number in range(done))
    assert all((files_folder / name).read_bytes() == content for name in os.listdir(files_folder))
