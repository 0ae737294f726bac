"""A patient's name, id and birth date are in no answer, no event, no log and no address of the app."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest

from app_process import Running, running

SECRETS = ("mustermann", "erika", "pid998877", "19700203", "1970-02-03")


@pytest.fixture
def patient(shared_data: Path, tmp_path: Path) -> Path:
    """A CD of one patient: a study that can be read, an image that is none, a text, and a slice that is damaged."""
    folder = tmp_path / "allowed" / "Mustermann_Erika_PID998877"
    shutil.copytree(shared_data / "head-ct-slab" / "dicom", folder / "DICOM")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        path.chmod(0o600)
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID = "Mustermann^Erika", "PID998877"
        dataset.PatientBirthDate = "19700203"
        dataset.SeriesDescription = "head Mustermann"
        dataset.save_as(path)
    whole = files[0].read_bytes()
    (folder / "DICOM" / "Mustermann-cut.dcm").write_bytes(whole[:400])
    dataset = pydicom.dcmread(files[0])
    dataset.Modality, dataset.StudyInstanceUID = "MR", "1.2.3.4"
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2.3.5", "1.2.3.6"
    (folder / "MR").mkdir()
    dataset.save_as(folder / "MR" / "Erika.dcm")
    return folder


def everything(server: Running) -> str:
    """All that the server says, and what its jobs printed."""
    said = []
    with server.client() as client:
        for path in ("/session", "/studies", "/studies.csv", "/jobs", "/audit", "/watches"):
            said.append(client.get(path).text)
        for study in client.get("/studies").json()["studies"]:
            said.append(client.get(f"/studies/{study['id']}").text)
        for job in client.get("/jobs").json()["jobs"]:
            said.append(client.get(f"/jobs/{job['id']}/log").text)
        with client.stream("GET", "/events", headers={"last-event-id": "0"}) as stream:
            for line in stream.iter_lines():
                said.append(line)
                if '"state":"done"' in line and '"kind":"import"' in line:
                    break
    return "\n".join(said)


def test_nothing_names_the_patient(patient: Path, tmp_path: Path) -> None:
    with running(tmp_path / "app", "--allow", str(patient.parent)) as server:
        with server.client() as client:
            job = client.post("/imports", json={"folder": str(patient), "predict": False}).json()["id"]
            end = server.wait_for_job(client, job)
            assert end["state"] == "done"
            assert end["problems"]  # the damaged slice at least
            (study,) = client.get("/studies").json()["studies"]
            assert client.get("/studies", params={"query": "Mustermann"}).json()["total"] == 0
            for method, path in (("GET", "/studies/Mustermann"), ("GET", f"/studies/{study['id']}/files/x/Erika")):
                assert client.request(method, path).status_code in (404, 422)
        said = everything(server).casefold()
        assert study["id"] in said
        assert [secret for secret in SECRETS if secret in said] == []
        assert "pseudonyms.csv" not in said  # of `predict`; the app has none
    with running(tmp_path / "app", "--show-patient", workers=False) as server, server.client() as client:
        (shown,) = client.get("/studies", params={"query": "mustermann"}).json()["studies"]
        assert shown["name"] == "Mustermann^Erika PID998877"
        assert shown["id"] == study["id"]
        assert json.dumps(shown["date"]) != '""'
