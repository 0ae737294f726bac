"""The commands of docs/app.md and docs/server.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from app_process import API, Running, running
from hemotorch.io import nifti
from hemotorch.scan import even_scan

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code in a page that are of a language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def program(name: str) -> str:
    """Where a program is; without it the test is skipped with the reason, or fails if CI=true."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed, which .ci/run installs")
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    hu = np.random.default_rng(3).integers(-1000, 1500, (6, 20, 24)).astype(np.int16)
    nifti.write_scan(even_scan(hu, 1.0, 5.0), path)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = ["--user-header", "X-Remote-User", "--trusted-proxy", "127.0.0.1"]
    with running(tmp_path_factory.mktemp("docs") / "app", *options) as server:
        yield server


def bash(script: str, folder: Path, **variables: object) -> str:
    """What a script prints. Fails if one of its commands does."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def import_scan(server: Running, scan: Path) -> str:
    """Uploads and adds a scan; its study's id."""
    with server.client() as client:
        content = scan.read_bytes()
        batch = f"batch-{time.time_ns()}"
        client.put(f"/uploads/{batch}/scan.nii.gz", params={"offset": 0, "bytes": len(content)}, content=content)
        job = client.post("/imports", json={"batch": batch, "predict": False}).json()["id"]
        assert server.wait_for_job(client, job)["state"] == "done"
        return str(client.get("/studies").json()["studies"][0]["id"])


def test_the_examples_of_the_interface(server: Running, scan: Path, tmp_path: Path) -> None:
    program("curl")
    examples = blocks("app.md", "bash")
    assert len(examples) == 7
    upload, rest = examples[:3], examples[3:]
    variables = {"URL": server.url, "TOKEN": server.token, "SCAN": scan}
    printed = bash("\n".join(upload), tmp_path, **variables)
    assert '"role":"write"' in printed
    job = re.findall(r"job-[0-9a-f]+", printed)[0]
    with server.client() as client:
        assert server.wait_for_job(client, job)["state"] == "done"
    printed = bash("\n".join([upload[0], *rest]), tmp_path, **variables)
    assert "event: job" in printed
    assert '"state":"agreed"' in printed
    assert (tmp_path / "hu.int16").stat().st_size == 4 * 20 * 24 * 2
    assert (tmp_path / "studies.csv").read_text().startswith("study,patient")
    with server.client() as client:
        assert client.get("/studies").json()["total"] == 0


def test_a_backup_is_restored(server: Running, scan: Path, tmp_path: Path) -> None:
    study = import_scan(server, scan)
    backup, restore = blocks("server.md", "bash")
    folders = {"FOLDER": server.folder, "BACKUP": tmp_path / "backup", "RESTORED": tmp_path / "restored"}
    with server.client() as client:
        client.patch(f"/studies/{study}", json={"note": "kept"})
        before = client.get(f"/studies/{study}").json()
        hu = client.get(f"/studies/{study}/hu").content
    bash(backup, tmp_path, **folders)
    with server.client() as client:
        client.delete(f"/studies/{study}")
    bash(restore, tmp_path, **folders)
    with running(tmp_path / "restored", workers=False) as restored, restored.client() as client:
        assert restored.token == server.token
        assert client.get(f"/studies/{study}").json() == before
        assert client.get(f"/studies/{study}/hu").content == hu


def test_the_service_file_is_one(tmp_path: Path) -> None:
    verify = program("systemd-analyze")
    (unit,) = blocks("server.md", "ini")
    command = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0]
    # Its command is one that hemotorch has, and only its program is elsewhere here.
    words = command.split()
    options = [word for word in words if word.startswith("--")]
    printed = subprocess.run(
        [sys.executable, "-m", "hemotorch.cli", "serve", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(option in printed for option in options)
    path = tmp_path / "hemotorch.service"
    path.write_text(unit.replace(words[0], sys.executable).replace("User=hemotorch", "User=root"))
    done = subprocess.run([verify, "verify", str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert str(path.name) not in done.stderr, done.stderr


def test_the_proxy_names_the_user(server: Running, scan: Path, tmp_path: Path) -> None:
    nginx = program("nginx")
    (config,) = blocks("server.md", "nginx")
    port = free_port()
    config = config.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    config = re.sub(r"\n +ssl_\w+ .*;", "", config)
    config = config.replace("hemotorch.hospital.example", "localhost")
    config = config.replace("http://127.0.0.1:8080", server.url)
    config = config.replace("/etc/nginx/hemotorch.users", str(tmp_path / "users"))
    (tmp_path / "users").write_text("dr.a:{PLAIN}secret\n")
    temporary = "\n".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    whole = (
        f"{user}daemon off;\npid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{temporary}\n{config}}}\n"
    )
    (tmp_path / "nginx.conf").write_text(whole)
    process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
    try:
        url = f"http://localhost:{port}"
        for _ in range(100):
            try:
                assert httpx.get(url).status_code == 401
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        with httpx.Client(base_url=url + API, auth=("dr.a", "secret"), headers={"origin": url}, timeout=30) as client:
            session = client.get("/session", headers={"x-remote-user": "somebody.else"}).json()
            assert (session["user"], session["role"]) == ("dr.a", "write")
            content = scan.read_bytes() * 300  # more than nginx takes by itself
            options = {"offset": 0, "bytes": len(content)}
            sent = client.put("/uploads/through-proxy/x.nii.gz", params=options, content=content)
            assert sent.json()["done"] is True
            evil = {"origin": "http://evil.example"}
            assert client.delete("/uploads/through-proxy", headers=evil).status_code == 403
            with client.stream("GET", "/events", headers={"last-event-id": "x"}) as stream:
                lines = stream.iter_lines()
                seen = [next(lines) for _ in range(4)]
            assert any(line == "event: resync" for line in seen)
            assert client.delete("/uploads/through-proxy").status_code == 204
            newest = client.get("/audit").json()["lines"][0]
            assert (newest["user"], newest["action"]) == ("dr.a", "deleted an upload")
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
