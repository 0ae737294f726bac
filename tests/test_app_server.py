"""The server as a browser or a script meets it: sign-in, refusals, uploads, imports, pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app_process import API, Running, running
from hemotorch.io import nifti, read_scan
from hemotorch.scan import even_scan


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    allowed = tmp_path_factory.mktemp("allowed")
    scan = even_scan(np.random.default_rng(1).integers(-1000, 1500, (6, 20, 24)).astype(np.int16), 1.0, 5.0)
    nifti.write_scan(scan, allowed / "scan.nii.gz")
    (allowed / "link").symlink_to("/etc")
    with running(tmp_path_factory.mktemp("app") / "work", "--allow", str(allowed)) as server:
        yield server


@pytest.fixture(scope="module")
def allowed(server: Running) -> Path:
    with server.client() as client:
        return Path(client.get("/folders").json()[0]["path"])


@pytest.fixture(scope="module")
def study(server: Running, allowed: Path) -> str:
    """A study that was added from a folder of the server."""
    with server.client() as client:
        job = client.post("/imports", json={"folder": str(allowed / "scan.nii.gz"), "predict": False}).json()
        end = wait(server, job["id"])
        assert (end["state"], end["problems"]) == ("done", [])
        (entry,) = client.get("/studies").json()["studies"]
        return str(entry["id"])


def wait(server: Running, job: str) -> dict[str, Any]:
    """A job's end, as the events tell it."""
    import json

    with server.client() as client, client.stream("GET", "/events", headers={"last-event-id": "0"}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                if data.get("id") == job and data["state"] not in ("waiting", "running"):
                    found: dict[str, Any] = data
                    return found
    raise AssertionError("the stream ended")


def operations(server: Running) -> list[tuple[str, str]]:
    """Method and path of every operation, with parameters filled in."""
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    found = []
    for path, methods in paths.items():
        filled = path.removeprefix(API)
        for name, value in (("study", "study-00000000"), ("batch", "batch-0001"), ("layer", "truth")):
            filled = filled.replace(f"{{{name}}}", value)
        found += [(method.upper(), filled.replace("{", "").replace("}", "")) for method in methods]
    assert len(found) > 15
    return found


def test_no_route_answers_without_a_token(server: Running) -> None:
    with server.client(None) as nobody, server.client("x" * 43) as wrong:
        for method, path in operations(server):
            for client in (nobody, wrong):
                answer = client.request(method, path)
                assert answer.status_code == 401, (method, path)
                assert "not signed in" in answer.json()["what"]
        assert nobody.get("/openapi.json").status_code == 401
        assert nobody.get("/nothing").status_code == 401


def test_the_read_only_token_changes_nothing(server: Running) -> None:
    with server.client(server.read_token) as client:
        assert client.get("/session").json()["role"] == "read"
        for method, path in operations(server):
            answer = client.request(method, path) if path != "/events" else None
            if method != "GET":
                assert answer is not None
                assert answer.status_code == 403, (method, path)
            elif answer is not None:
                assert answer.status_code not in (401, 403, 500), (method, path)


def test_the_link_signs_in_and_leaves_the_address(server: Running) -> None:
    with httpx.Client(base_url=server.url) as browser:
        assert browser.get("/open", params={"token": "wrong"}).status_code == 401
        assert not browser.cookies
        answer = browser.get("/open", params={"token": server.token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert server.token not in cookie
        assert browser.get(f"{API}/session").json()["role"] == "write"
        change = {"user": "Dr. A", "blind": True}
        # A page of another site would send its own Origin, a form of old browsers none.
        for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
            assert browser.patch(f"{API}/session", json=change, headers=headers).status_code == 403
        own = browser.patch(f"{API}/session", json=change, headers={"origin": server.url})
        assert own.json()["user"] == "Dr. A"
        assert browser.get(f"{API}/session").json()["blind"] is True


def test_only_its_own_hosts_are_answered(server: Running) -> None:
    with server.client() as client:
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", ""):
            assert client.get("/session", headers={"host": host}).status_code == 403, host
        for host in ("localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:9", "10.0.0.7"):
            assert client.get("/session", headers={"host": host}).status_code == 200, host


def test_every_answer_has_a_strict_policy(server: Running, study: str) -> None:
    with server.client() as client, httpx.Client(base_url=server.url) as pages:
        answers = [client.get("/session"), client.get(f"/studies/{study}/hu"), client.get("/nothing")]
        answers += [pages.get(path) for path in ("/", "/studies/x", "/favicon.svg", "/open", f"{API}/session")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    assert answers[0].headers["cache-control"] == "no-store"


def test_pixels(server: Running, allowed: Path, study: str) -> None:
    expected = read_scan(allowed / "scan.nii.gz").hu
    with server.client() as client:
        answer = client.get(f"/studies/{study}/hu")
        assert np.array_equal(np.frombuffer(answer.content, "<i2").reshape(expected.shape), expected)
        assert "content-encoding" not in answer.headers  # on loopback
        some = client.get(f"/studies/{study}/hu", params={"first": 2, "last": 3})
        assert np.array_equal(np.frombuffer(some.content, "<i2").reshape(2, 20, 24), expected[2:4])
        kept = client.get(f"/studies/{study}/hu", headers={"if-none-match": answer.headers["etag"]})
        assert (kept.status_code, kept.content) == (304, b"")
        for wrong in ({"first": 6}, {"last": 6}, {"first": 3, "last": 2}, {"first": -1}, {"first": "x"}):
            assert client.get(f"/studies/{study}/hu", params=wrong).status_code == 422, wrong
        assert client.get(f"/studies/{study}/mask/truth").status_code == 404
        assert client.get(f"/studies/{study}/mask/prediction:..").status_code == 422
        assert client.get("/studies/study-00000000/hu").status_code == 404
        page = client.get(f"/studies/{study}").json()
        assert page["geometry"]["shape"] == [6, 20, 24]
        assert page["geometry"]["positions_mm"] == pytest.approx([0, 5, 10, 15, 20, 25])
        assert client.get(f"/studies/{study}/thumbnail.jpg").content[:2] == b"\xff\xd8"
        lines = client.get("/audit").json()["lines"]
        assert [line["study"] for line in lines if line["action"] == "looked"] == [study]


def test_judging_and_exporting(server: Running, study: str) -> None:
    with server.client() as client:
        before = client.get(f"/studies/{study}").json()["revision"]
        shown = client.patch(f"/studies/{study}", json={"state": "agreed", "note": "=2+3"}).json()
        assert (shown["state"], shown["note"], shown["revision"]) == ("agreed", "=2+3", before + 1)
        table = client.get("/studies.csv", params={"state": "agreed"}).text
        assert f"\r\n{study}," in table
        assert ",'=2+3" in table  # no formula for a spreadsheet
        assert client.patch(f"/studies/{study}", json={"state": "fine"}).status_code == 422
        assert client.get("/studies", params={"cursor": "x"}).status_code == 422


def test_only_allowed_folders_are_shown(server: Running, allowed: Path) -> None:
    with server.client() as client:
        names = [entry["name"] for entry in client.get("/folders", params={"path": str(allowed)}).json()]
        assert names == ["scan.nii.gz"]  # a link may lead anywhere
        outside = ["/etc", f"{allowed}/..", f"{allowed}/link", "relative", "/", f"{allowed}/none", f"{allowed}x", "\0"]
        for path in outside:
            assert client.get("/folders", params={"path": path}).status_code in (403, 422) or not path, path
            assert client.post("/imports", json={"folder": path}).status_code in (403, 422), path
            assert client.post("/watches", json={"folder": path}).status_code in (403, 422), path


def test_errors_are_refusals(server: Running) -> None:
    with server.client() as client:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("DELETE", "/session", 405),
            ("GET", "/studies/../../etc/passwd", 404),
            ("GET", "/studies/study-1", 422),
            ("POST", "/imports", 422),
            ("POST", "/watches", 422),
        ):
            answer = client.request(method, path)
            assert answer.status_code == status, path
            if answer.headers["content-type"] == "application/json":
                assert answer.json()["what"]
