"""A Python client of the REST interface, with types and without dependencies of its own.

from hemotorch.app.client import AppClient

app = AppClient("http://127.0.0.1:8080", token)
job = app.wait(app.add(["scans/", "CD.zip"]))
for study in app.studies(doubts="any"):
    print(study.id, study.volume_ml["total"], [doubt.text for doubt in study.doubts])
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

import numpy as np

from hemotorch.app.schemas import (
    AppJob,
    CorrectedSet,
    DatasetRequest,
    Draft,
    ImportRequest,
    JobPage,
    JobState,
    LayerComparison,
    ModelInfo,
    PredictRequest,
    ReaderSession,
    ReadingState,
    Schema,
    Study,
    StudyChange,
    StudyPage,
    StudySummary,
    Teaching,
    TrainingEstimate,
    TrainingRequest,
    UploadBatch,
    UploadState,
    Version,
    VersionRequest,
)
from hemotorch.errors import InputError, RunError

ROOT = "/api/v1"
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
_POLL_S = 0.5
S = TypeVar("S", bound=Schema)


class RefusedByServer(InputError):
    """The server refused. status: of HTTP. body: the answer, as of the newest version of a 409."""

    def __init__(self, status: int, what: str, where: str = "", todo: str = "", body: Any = None):
        super().__init__(what, where or None, todo or None)
        self.status = status
        self.body = body


class AppClient:
    """A server of `hemotorch serve`."""

    def __init__(self, url: str, token: str = "", timeout_s: float = 60.0):
        """A client.

        Args:
            url: of the server; the link that it printed will do, which holds the token.
            token: of the file `token` in the workspace; "" if it is in the link.
            timeout_s: for each answer.
        """
        parts = urlsplit(url)
        self._root = f"{parts.scheme}://{parts.netloc}{ROOT}"
        self._token = token or parts.query.removeprefix("token=")
        self._timeout_s = timeout_s

    def session(self) -> ReaderSession:
        """Who this is, and what the server can do."""
        return self._one(ReaderSession, "GET", "/session")

    def studies(self, **query: str) -> Iterator[StudySummary]:
        """The worklist, all pages; query: as of GET /studies, such as state="unread", sort="ml"."""
        cursor = ""
        while True:
            page = self._one(StudyPage, "GET", "/studies", {**query, "cursor": cursor})
            yield from page.studies
            cursor = page.next
            if not cursor:
                return

    def study(self, study: str) -> Study:
        """A study with its layers, lesions, doubts and files."""
        return self._one(Study, "GET", f"/studies/{study}")

    def judge(self, study: str, state: ReadingState | str, note: str | None = None) -> Study:
        """Says of a study that the reader agrees, disagrees or is not sure."""
        return self._one(Study, "PATCH", f"/studies/{study}", body=StudyChange(state=ReadingState(state), note=note))

    def delete(self, study: str) -> None:
        """Removes a study and all that belongs to it."""
        self._call("DELETE", f"/studies/{study}")

    def hu(self, study: str) -> np.ndarray:
        """(slices, rows, columns) int16 HU."""
        return self._array(f"/studies/{study}/hu", "<i2").astype(np.int16, copy=False)

    def mask(self, study: str, layer: str) -> np.ndarray:
        """(slices, rows, columns) uint8 codes of a layer, such as "prediction:default" or "version:1"."""
        return self._array(f"/studies/{study}/mask/{quote(layer)}", "u1")

    def probability(self, study: str, layer: str) -> np.ndarray:
        """(slices, rows, columns) uint8, 255 is certain."""
        return self._array(f"/studies/{study}/probability/{quote(layer)}", "u1")

    def download(self, url: str, path: Path | str) -> Path:
        """Saves a file of `Study.files`."""
        data, _ = self._call("GET", url.removeprefix(ROOT))
        Path(path).write_bytes(data)
        return Path(path)

    def add(self, paths: Sequence[Path | str] | Path | str, predict: bool = True) -> AppJob:
        """Uploads files, folders and zips, and looks for scans in them. What is there already is not sent again.

        Raises:
            InputError: if there is no such file.
            RefusedByServer: if the server takes no such file.
        """
        given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
        batch = f"client-{uuid.uuid4().hex}"
        for path in given:
            if not path.exists():
                raise InputError("no such file", path)
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            for file in files:
                self.upload(batch, file.relative_to(path.parent).as_posix(), file)
        return self._one(AppJob, "POST", "/imports", body=ImportRequest(batch=batch, predict=predict))

    def upload(self, batch: str, name: str, file: Path) -> UploadState:
        """Uploads one file; goes on where an earlier attempt was cut off.

        Args:
            batch: of 8 letters or more, chosen by the caller, the same for files that belong together.
            name: path of the file within it.
            file: that is read.
        """
        size = file.stat().st_size
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        offset = 0
        for attempt in range(3):
            query = {"offset": str(offset), "bytes": str(size)}
            headers = {"content-type": "application/octet-stream", "x-content-sha256": digest}
            headers["content-length"] = str(size - offset)
            try:
                with file.open("rb") as stream:
                    stream.seek(offset)
                    data, _ = self._call("PUT", f"/uploads/{batch}/{quote(name)}", query, stream, headers)
                return UploadState.model_validate_json(data)
            except RunError:
                if attempt == 2:
                    raise
                offset = self._offset(batch, name)
        raise RunError("was cut off again and again", name, "try again later")

    def _offset(self, batch: str, name: str) -> int:
        try:
            known = self._one(UploadBatch, "GET", f"/uploads/{batch}")
        except RefusedByServer:
            return 0
        return next((state.offset for state in known.files if state.path == name), 0)

    def job(self, job: str) -> AppJob:
        """A job, and how far it is."""
        return self._one(AppJob, "GET", f"/jobs/{job}")

    def jobs(self, **query: str) -> Iterator[AppJob]:
        """Jobs, newest first; query: as of GET /jobs, such as state="failed"."""
        cursor = ""
        while True:
            page = self._one(JobPage, "GET", "/jobs", {**query, "cursor": cursor})
            yield from page.jobs
            cursor = page.next
            if not cursor:
                return

    def log(self, job: str) -> str:
        """What a job printed."""
        return self._call("GET", f"/jobs/{job}/log")[0].decode()

    def cancel(self, job: str) -> AppJob:
        """Cancels a job."""
        return self._one(AppJob, "POST", f"/jobs/{job}/cancel")

    def retry(self, job: str) -> AppJob:
        """Does a job again that failed or was cancelled."""
        return self._one(AppJob, "POST", f"/jobs/{job}/retry")

    def wait(self, job: AppJob | str, seconds: float = 3600.0) -> AppJob:
        """Waits for a job's end.

        Raises:
            RunError: if it has failed or was cancelled, or does not end in time.
        """
        name = job if isinstance(job, str) else job.id
        end = time.monotonic() + seconds
        while (shown := self.job(name)).state not in ENDED:
            if time.monotonic() > end:
                raise RunError(f"did not end within {seconds:g} s", name)
            time.sleep(_POLL_S)
        if shown.state == JobState.DONE:
            return shown
        problem = shown.problem
        if problem is None:
            raise RunError(f"was {shown.state}", name)
        raise RunError(problem.what, problem.where or name, problem.todo or None)

    def predict(self, studies: Sequence[str] = (), model: str = "") -> list[AppJob]:
        """Outlines studies; without a list all that the model has not outlined."""
        data, _ = self._call("POST", "/predictions", body=PredictRequest(studies=list(studies), model=model))
        return [AppJob.model_validate(entry) for entry in json.loads(data)]

    def correct(self, study: str, mask: np.ndarray, base: str = "", comment: str = "") -> Version:
        """Saves a mask as a new version of a study.

        Args:
            study: its id.
            mask: (slices, rows, columns) uint8 codes of `hemotorch.labels`.
            base: the layer that it began from.
            comment: what is said of it.

        Raises:
            RefusedByServer: with status 409 if somebody saved a version meanwhile, 412 if the reader has a draft.
        """
        newest = max((version.number for version in self.versions(study)), default=0)
        headers = {"content-type": "application/octet-stream", "if-match": '"0"'}
        body = gzip.compress(np.ascontiguousarray(mask, np.uint8).tobytes(), compresslevel=1)
        data, _ = self._call("PUT", f"/studies/{study}/draft", {"base": base}, body, headers)
        Draft.model_validate_json(data)
        return self._one(
            Version, "POST", f"/studies/{study}/versions", body=VersionRequest(after=newest, comment=comment)
        )

    def versions(self, study: str) -> list[Version]:
        """Saved corrections, the oldest first."""
        data, _ = self._call("GET", f"/studies/{study}/versions")
        return [Version.model_validate(entry) for entry in json.loads(data)]

    def compare(self, study: str, a: str, b: str) -> LayerComparison:
        """Dice and mL of two layers."""
        return self._one(LayerComparison, "GET", f"/studies/{study}/compare", {"a": a, "b": b})

    def models(self) -> list[ModelInfo]:
        """All models."""
        data, _ = self._call("GET", "/models")
        return [ModelInfo.model_validate(entry) for entry in json.loads(data)]

    def use(self, model: str) -> ModelInfo:
        """Outlines new studies with this model from now on."""
        return self._one(ModelInfo, "POST", f"/models/{quote(model)}/use")

    def make_dataset(self, name: str, studies: Sequence[str] = ()) -> AppJob:
        """Makes a dataset of corrected studies."""
        return self._one(AppJob, "POST", "/datasets", body=DatasetRequest(name=name, studies=list(studies)))

    def datasets(self) -> list[CorrectedSet]:
        """Datasets that were made."""
        data, _ = self._call("GET", "/datasets")
        return [CorrectedSet.model_validate(entry) for entry in json.loads(data)]

    def estimate(self, request: TrainingRequest) -> TrainingEstimate:
        """What a training would take."""
        return self._one(TrainingEstimate, "POST", "/trainings/estimate", body=request)

    def teach(self, request: TrainingRequest) -> Teaching:
        """Teaches a model."""
        return self._one(Teaching, "POST", "/trainings", body=request)

    def training(self, name: str) -> Teaching:
        """A training, and how far it is."""
        return self._one(Teaching, "GET", f"/trainings/{name}")

    def _one(
        self, kind: type[S], method: str, path: str, query: dict[str, str] | None = None, body: Schema | None = None
    ) -> S:
        data, _ = self._call(method, path, query, body)
        return kind.model_validate_json(data)

    def _array(self, path: str, dtype: str) -> np.ndarray:
        data, headers = self._call("GET", path)
        shape = tuple(int(length) for length in headers["x-shape"].split(","))
        return np.frombuffer(data, dtype).reshape(shape)

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[bytes, HTTPMessage]:
        """The answer and its headers. Raises RefusedByServer; RunError if the server cannot be reached."""
        sent = {"authorization": f"Bearer {self._token}", **(headers or {})}
        if isinstance(body, Schema):
            body = body.model_dump_json().encode()
            sent["content-type"] = "application/json"
        asked = {key: value for key, value in (query or {}).items() if value != ""}
        url = f"{self._root}{path}?{urlencode(asked)}" if asked else f"{self._root}{path}"
        request = Request(url, data=body, headers=sent, method=method)
        try:
            with urlopen(request, timeout=self._timeout_s) as answer:
                return answer.read(), answer.headers
        except HTTPError as error:
            raise _refused(error) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise RunError(f"the server does not answer ({reason})", self._root, "is it running?") from error


def _refused(error: HTTPError) -> RefusedByServer:
    try:
        body = json.loads(error.read())
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("what"), str):
        return RefusedByServer(error.code, body["what"], body.get("where", ""), body.get("todo", ""), body)
    return RefusedByServer(error.code, f"the server answered {error.code} {error.reason}", body=body)
