"""Watched folders, the stream of events, and how a server starts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app_process import running, start
from hemotorch.app import models
from hemotorch.app.database import Database, announce
from hemotorch.app.events import MOST_MISSED, MOST_WAITING, EventStream
from hemotorch.app.run import use_model
from hemotorch.app.settings import open_workspace, read_token
from hemotorch.app.watch import TABLES, Watches
from hemotorch.cli import main
from hemotorch.errors import InputError, OptionError
from hemotorch.inference import box


def test_an_entry_is_imported_when_it_rests_and_once(tmp_path: Path) -> None:
    folder, app = tmp_path / "in", tmp_path / "app"
    (folder / "study").mkdir(parents=True)
    app.mkdir()
    imported: list[str] = []

    def watches() -> Watches:
        return Watches(Database(app, TABLES), lambda entry: imported.append(entry.name))

    first = watches()
    file = folder / "study" / "1.dcm"
    file.write_bytes(b"a")
    first.look(folder)
    file.write_bytes(b"ab")  # still being written
    first.look(folder)
    assert imported == []
    first.look(folder)
    first.look(folder)
    assert imported == ["study"]
    again = watches()  # after a restart
    again.look(folder)
    again.look(folder)
    assert imported == ["study"]
    (folder / "study" / "2.dcm").write_bytes(b"c")
    (folder / ".hidden").write_bytes(b"x")
    again.look(folder)
    again.look(folder)
    assert imported == ["study", "study"]
    again.look(tmp_path / "gone")  # a disk that is away


def events(database: Database) -> EventStream:
    return EventStream(database, {"study": lambda name: None if name == "gone" else json.dumps({"id": name})})


def change(database: Database, *names: str) -> None:
    with database.write() as connection:
        for name in names:
            announce(connection, "study", name)


async def heard(stream: EventStream, last_seen: str, count: int) -> list[str]:
    """The next texts of a stream, the first line of which is left out."""
    texts = []
    listener = stream.listen(last_seen)
    async for text in listener:
        texts.append(text)
        if len(texts) == count + 1:
            break
    return texts[1:]


def test_what_was_missed_is_sent_once_for_each_thing(tmp_path: Path) -> None:
    database = Database(tmp_path)
    change(database, "a", "b", "a", "gone")
    texts = asyncio.run(heard(events(database), "1", 3))
    assert [text.splitlines()[0] for text in texts] == ["id: 2", "id: 3", "id: 4"]
    assert [json.loads(text.splitlines()[2].removeprefix("data: ")) for text in texts] == [
        {"id": "b"}, {"id": "a"}, {"id": "gone", "deleted": True},
    ]  # fmt: skip
    for unknown in ("5", "x", "-1", "9" * 30):
        (text,) = asyncio.run(heard(events(database), unknown, 1))
        assert text.startswith("id: 4\nevent: resync\n")
    change(database, *["c"] * (MOST_MISSED + 1))
    (text,) = asyncio.run(heard(events(database), "1", 1))
    assert "resync" in text


def test_changes_of_other_connections_are_heard_and_a_slow_client_starts_anew(tmp_path: Path) -> None:
    database = Database(tmp_path)

    async def listen() -> list[str]:
        stream = events(database)
        watching = asyncio.create_task(stream.run())
        texts: list[str] = []
        async for text in stream.listen(""):
            texts.append(text)
            if len(texts) == 1:
                await asyncio.sleep(0.5)
                change(Database(tmp_path), "a")
            if len(texts) == 2:
                names = [f"s{number}" for number in range(MOST_WAITING + 10)]
                change(Database(tmp_path), *names)
                await asyncio.sleep(1.5)  # it does not listen for a while
            if "resync" in text:
                stream.close()
        watching.cancel()
        return texts

    texts = asyncio.run(asyncio.wait_for(listen(), 60))
    assert 'data: {"id": "a"}' in texts[1]
    assert len(texts) == 2 + MOST_WAITING + 1


def test_a_folder_with_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"x")
    assert main(["serve", str(tmp_path), "--no-browser"]) == 1
    assert f"hemotorch serve --watch {tmp_path}" in capsys.readouterr().err
    with pytest.raises(OptionError):
        open_workspace(tmp_path / "scan.nii.gz")
    assert open_workspace(tmp_path / "new") == open_workspace(tmp_path / "new")


@pytest.mark.parametrize(
    "options",
    [["--user-header", "X-User"], ["--trusted-proxy", "10.0.0.1"], ["--user-header", "X", "--trusted-proxy", "proxy"],
     ["--allow", "no-such-folder"], ["--watch", "no-such-folder"]],
)  # fmt: skip
def test_options_that_cannot_be(tmp_path: Path, options: list[str]) -> None:
    assert main(["serve", str(tmp_path / "app"), "--no-browser", *options]) == 1
    assert not (tmp_path / "app").exists()


def test_tokens(tmp_path: Path) -> None:
    token = read_token(tmp_path / "token")
    assert len(token) >= 40
    assert read_token(tmp_path / "token") == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    for wrong in ("short", "with spaces " * 5, "", "é" * 30):
        (tmp_path / "token").write_text(wrong)
        with pytest.raises(InputError):
            read_token(tmp_path / "token")


def test_a_taken_port_a_second_server_and_an_end(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running(tmp_path / "app", "--port", str(port), workers=False) as server:
            assert int(server.url.rpartition(":")[2]) > port
            assert main(["serve", str(tmp_path / "app"), "--no-browser", "--port", "0"]) == 1
            assert stat.S_IMODE((tmp_path / "app").stat().st_mode) == 0o700
    server = start(tmp_path / "app", workers=False)
    with server.client() as client, client.stream("GET", "/events") as stream:
        next(stream.iter_lines())
        os.kill(server.process.pid, signal.SIGTERM)  # while somebody listens
        server.process.wait(60)


def test_a_server_folder_is_watched(tmp_path: Path, shared_data: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "head.nii.gz").write_bytes((shared_data / "head-ct-painted" / "painted1.nii.gz").read_bytes())
    with running(tmp_path / "app", "--watch", str(incoming)) as server, server.client() as client:
        assert client.post("/watches", json={"folder": str(incoming), "seconds": 2}).json()[0]["seconds"] == 2
        for _ in range(900):
            studies = client.get("/studies").json()["studies"]
            if studies:
                break
            time.sleep(0.1)
        assert [study["name"] for study in studies] == ["head.nii.gz"]
        assert client.delete("/watches", params={"folder": str(incoming)}).status_code == 204
        assert client.get("/watches").json() == []
        assert client.delete("/watches", params={"folder": str(incoming)}).status_code == 404


def test_a_model_that_is_given_is_used(tmp_path: Path) -> None:
    database = Database(tmp_path, models.TABLES)
    known = models.Models(tmp_path, database)
    assert known.current == "default"
    file = tmp_path / "My model 2.onnx"
    file.write_bytes(box.model_file("default").read_bytes())
    use_model(known, str(file))
    assert known.current == "My-model-2"
    use_model(known, str(file))  # at the next start
    use_model(known, "default")
    assert known.current == "default"
    file.write_bytes(file.read_bytes() + b"x")
    for wrong in (str(file), "no-such-model", str(tmp_path)):
        with pytest.raises(InputError):
            use_model(known, wrong)


@pytest.mark.parametrize("lacking", ["fastapi", "uvicorn"])
def test_without_its_libraries_the_command_says_what_to_install(tmp_path: Path, lacking: str) -> None:
    code = f"import sys; sys.modules[{lacking!r}] = None; from hemotorch.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", str(tmp_path / "app"), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "pip install 'hemotorch[app]'" in done.stderr
    assert not (tmp_path / "app").exists()
