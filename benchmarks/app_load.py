"""Load on `hemotorch serve`: many people looking, some uploading, and a worklist of 10,000 studies.

    python benchmarks/app_load.py --seconds 120                    # 50 looking, 20 uploading
    python benchmarks/app_load.py --studies 10000 --seconds 0      # the worklist alone

The server runs in a process of its own, on a free port, in a new folder; this script only asks. A looker opens the
worklist, a study, and its slices in pieces of eight, one after the other, and waits a little between. An uploader sends
a scan in pieces of 1 MB. At the end every upload is asked for and its digest compared.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from hemotorch.app import library
from hemotorch.app.database import Database
from hemotorch.app.layers import write_layer
from hemotorch.app.library import Library
from hemotorch.app.schemas import StudyStage
from hemotorch.inference.scan_files import ScanFiles
from hemotorch.io import nifti
from hemotorch.labels import CODES
from hemotorch.scan import even_scan

API = "/api/v1"
SHAPE = (40, 512, 512)
PIECE = 2**20
SLICES = 8  #: that a looker asks for at once
PAUSE_S = 0.5  #: between a looker's slices; to scroll is quicker, but 50 people do not scroll at once
UPLOAD_BYTES = 8 * 2**20


def fill(folder: Path, studies: int, looked_at: int) -> list[str]:
    """Makes a workspace: some studies with voxels, and many rows without. Gives the ids of those with voxels."""
    folder.mkdir(parents=True, exist_ok=True)
    database = Database(folder, library.TABLES)
    shelf = Library(folder, database)
    ids = []
    random_numbers = np.random.default_rng(0)
    for number in range(looked_at):
        hu = random_numbers.integers(-1000, 1500, SHAPE, np.int16)
        path = folder.parent / f"scan{number}.nii.gz"
        nifti.write_scan(even_scan(hu, 0.45, 5.0), path)
        files = ScanFiles((path,), path)
        study = shelf.add(files.read(), files).id
        mask = np.zeros(SHAPE, np.uint8)
        mask[15:25, 200:260, 200:260] = CODES["subdural"]
        write_layer(shelf.folder(study), "prediction:default", shelf.scan(study), mask, title="default", typed=True)
        shelf.set_result(study, [], StudyStage.PREDICTED)
        ids.append(study)
    columns = "id, patient, name, hidden, moment, added, source, description, slices, origin, digest, total_ml"
    with database.write() as connection:
        for number in range(studies):
            added = f"2025-{1 + number % 12:02d}-{1 + number % 28:02d}T00:00:{number % 60:02d}.000Z"
            total = float(number % 90)
            values = (f"study-{number:08x}", "", f"scan-{number}.nii.gz", 0, "", added, "NIfTI", "512 x 512, 5 mm")
            marks = ", ".join("?" * 12)
            query = f"INSERT INTO study ({columns}) VALUES ({marks})"
            connection.execute(query, (*values, 40, "", f"row{number}", total))
    database.close()
    return ids


class Clock:
    """Seconds that answers took, by kind of request, and what went wrong."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []

    async def ask(self, client: httpx.AsyncClient, kind: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Asks, and notes how long the whole answer took."""
        start = time.perf_counter()
        answer = await client.request(method, API + path, **options)
        self.seconds[kind].append(time.perf_counter() - start)
        if answer.status_code >= 400:
            self.errors.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer


async def look(client: httpx.AsyncClient, clock: Clock, studies: list[str], end: float, seed: int) -> None:
    """One person who looks through studies."""
    chance = random.Random(seed)
    await asyncio.sleep(chance.uniform(0, 3))
    while time.monotonic() < end:
        await clock.ask(client, "worklist", "GET", "/studies")
        study = chance.choice(studies)
        await clock.ask(client, "study", "GET", f"/studies/{study}")
        for first in range(0, SHAPE[0], SLICES):
            if time.monotonic() >= end:
                return
            last = first + SLICES - 1
            params = {"first": first, "last": last}
            await clock.ask(client, "8 slices", "GET", f"/studies/{study}/hu", params=params)
            await clock.ask(client, "8 masks", "GET", f"/studies/{study}/mask/prediction:default", params=params)
            await asyncio.sleep(chance.uniform(0.5, 1.5) * PAUSE_S * SLICES)


async def upload(client: httpx.AsyncClient, clock: Clock, end: float, seed: int, sent: dict[str, str]) -> None:
    """One person who uploads files."""
    chance = random.Random(seed)
    await asyncio.sleep(chance.uniform(0, 3))
    number = 0
    while time.monotonic() < end:
        content = chance.randbytes(UPLOAD_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        batch, number = f"load-{seed:04d}-{number:05d}", number + 1
        for offset in range(0, len(content), PIECE):
            params = {"offset": offset, "bytes": len(content)}
            piece = content[offset : offset + PIECE]
            await clock.ask(client, "1 MB up", "PUT", f"/uploads/{batch}/scan.nii.gz", params=params, content=piece)
            await asyncio.sleep(chance.uniform(0.5, 1.5))
        sent[batch] = digest


async def load(url: str, token: str, studies: list[str], looking: int, uploading: int, seconds: float) -> Clock:
    """Everybody at once; then every upload is asked for."""
    clock = Clock()
    sent: dict[str, str] = {}
    headers = {"authorization": f"Bearer {token}", "accept-encoding": "identity"}
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as client:
        end = time.monotonic() + seconds
        people = [look(client, clock, studies, end, number) for number in range(looking)]
        people += [upload(client, clock, end, number, sent) for number in range(uploading)]
        await asyncio.gather(*people)
        for batch, digest in sent.items():
            answer = await client.get(f"{API}/uploads/{batch}")
            files = answer.json().get("files", [])
            if [file["sha256"] for file in files] != [digest]:
                clock.errors.append(f"lost: {batch}")
    clock.seconds["uploads that were whole"] = [0.0] * len(sent)
    return clock


def memory_mb(process: int) -> tuple[float, float]:
    """Own and mapped memory of a process now: anonymous, and the whole resident set."""
    values = {}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("RssAnon", "VmRSS"):
            values[name] = int(rest.split()[0]) / 1024
    return values["RssAnon"], values["VmRSS"]


def processor_s(process: int) -> float:
    """Seconds of processor time that a process has used; on a machine that others use, they tell more than a clock."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pages(url: str, token: str) -> dict[str, float]:
    """The slowest of twenty pages of the worklist, for each way to sort, search and filter, in ms."""
    ways: dict[str, dict[str, str]] = {
        f"sort by {sort}": {"sort": sort} for sort in ("priority", "date", "added", "ml")
    }
    ways |= {"sort by name": {"sort": "name"}, "sort by state": {"sort": "state"}}
    ways |= {"search": {"query": "n-77"}, "bleeding": {"bleeding": "any"}, "unread": {"state": "unread"}}
    slowest = {}
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        client.get(f"{API}/studies")
        for name, params in ways.items():
            times, cursor = [], ""
            for _ in range(20):
                start = time.perf_counter()
                page = client.get(f"{API}/studies", params={**params, "cursor": cursor}).json()
                times.append(time.perf_counter() - start)
                cursor = page["next"]
                if not cursor:
                    break
            slowest[name] = round(1000 * max(times), 1)
    return slowest


def main() -> None:
    """Measures, and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--looking", type=int, default=50)
    parser.add_argument("--uploading", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--studies", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "app")
        ids = fill(folder, options.studies, 8)
        command = [sys.executable, "-m", "hemotorch.cli", "serve", str(folder), "--port", "0", "--no-browser"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("open "))
            url = line.split()[1].partition("/open?")[0]
            token = (folder / "token").read_text().strip()
            wait_for(url)
            result: dict[str, Any] = {"slowest page in ms": pages(url, token)}
            own, resident = memory_mb(process.pid)
            result["server's memory after that, MB"] = {"own": round(own), "resident": round(resident)}
            if options.seconds:
                people = options.looking, options.uploading
                before = processor_s(process.pid)
                clock = asyncio.run(load(url, token, ids, *people, options.seconds))
                used = processor_s(process.pid) - before
                own, resident = memory_mb(process.pid)
                result |= {
                    "looking": options.looking,
                    "uploading": options.uploading,
                    "seconds": options.seconds,
                    "errors": clock.errors[:20],
                    "server's processor time, s": round(used, 1),
                    "load of the machine": os.getloadavg()[1],
                    "answers": {
                        kind: {
                            "count": len(times),
                            "median_ms": round(1000 * statistics.median(times), 1),
                            "p95_ms": round(1000 * sorted(times)[int(0.95 * (len(times) - 1))], 1),
                        }
                        for kind, times in clock.seconds.items()
                        if times
                    },
                    "server's memory at the end, MB": {"own": round(own), "resident": round(resident)},
                }
            print(json.dumps(result, indent=2))
        finally:
            process.terminate()
            process.wait(60)


def wait_for(url: str) -> None:
    """Waits until the server answers."""
    for _ in range(600):
        try:
            httpx.get(url, timeout=5)
            return
        except httpx.ConnectError:
            time.sleep(0.1)


if __name__ == "__main__":
    main()
