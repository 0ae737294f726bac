"""Trainings of a workspace: who is taught with, who is held out, how long it takes, and what came of it. No torch here.

trainings/NAME/training.json   what was asked for; written when it is asked for
trainings/NAME/data/           corrected/, painted/, phantom/: what is prepared
trainings/NAME/prepared/       the prepared dataset
trainings/NAME/run/            the run of `hemotorch train`
trainings/NAME/slices/K.png    the same few slices after each epoch; slices.json says which
trainings/NAME/outcome.json    the comparison and the new model; written last
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from hemotorch.app.database import now
from hemotorch.app.datasets import TrueStudy, true_studies
from hemotorch.app.refusals import Conflict, Missing
from hemotorch.app.schemas import (
    EpochPoint,
    JobKind,
    JobState,
    PairedScore,
    Schema,
    Teaching,
    TrainingEstimate,
    TrainingRequest,
    ValidationSlice,
)
from hemotorch.app.workspace import Workspace
from hemotorch.errors import InputError, RunError
from hemotorch.inference import box
from hemotorch.recipe import recipe_from_toml
from hemotorch.system.extras import missing_extra
from hemotorch.system.files import file_digest, write_text
from hemotorch.system.metrics import EpochMetrics
from hemotorch.system.records import build

TRAININGS, RECORD, OUTCOME, SLICES = "trainings", "training.json", "outcome.json", "slices"
RUN, PREPARED, DATA = "run", "prepared", "data"
ORIGIN = "taught: "  #: what the origin of a model that was taught here begins with
HELD_OUT_SHARE, MOST_HELD_OUT = 0.25, 20  #: of the patients
FEW_PATIENTS = 5  #: with fewer held out, the comparison says little
EPOCHS, LEAST_STEPS, MOST_STEPS, BATCH = 8, 10, 60, 8
SLICES_OF_STUDY, LEAST_PHANTOMS, MOST_PHANTOMS = 30, 4, 24
TIMING_S = 180.0  #: that timing a few steps may take
_OVERHEAD = 1.3  #: of a step with reading and augmenting over a bare one
#: Seconds on two cores: of a held-out scan after each epoch and twice in the end; of a phantom; of export and the rest.
_SCAN_S, _PHANTOM_S, _REST_S = 8.0, 3.0, 30.0


class TrainingRecord(Schema):
    """What training.json holds. groups: the patients who are taught with; unknown ones stand as their studies."""

    name: str
    base: str
    studies: list[str]
    held_out: list[str]
    groups: list[str]
    epochs: int
    steps: int
    painted: bool
    recipe: str
    created: str
    user: str


class TrainingOutcome(Schema):
    """What outcome.json holds. model: the name of the new one."""

    comparison: list[PairedScore]
    note: str
    model: str


class PictureRecord(Schema):
    """A picture of slices/: K.png."""

    number: int
    study: str
    slice: int
    epoch: int


@dataclass(frozen=True)
class TeachingPlan:
    """Who is taught with and who is held out, never a patient on both sides; and how long."""

    base: str
    taught: list[TrueStudy]
    held_out: list[TrueStudy]
    epochs: int
    steps: int

    @property
    def patients(self) -> int:
        """Of both sides."""
        return len({study.group for study in (*self.taught, *self.held_out)})

    @property
    def held_out_patients(self) -> int:
        """Of the side that is held out."""
        return len({study.group for study in self.held_out})


def plan_training(workspace: Workspace, wanted: TrainingRequest) -> TeachingPlan:
    """Shares out the patients, a quarter held out: such that the old model was not taught with here.

    The order in which patients are held out is a function of the patient alone, so that one who was held out once
    tends to be held out again.

    Raises:
        Missing: if a study or the model is not there, or nothing was corrected.
        InputError: if the recipe cannot be used.
    """
    base = wanted.base or workspace.models.current
    workspace.models.info(base)
    if wanted.recipe:
        recipe_from_toml(wanted.recipe, "recipe")
    studies = true_studies(workspace.library, wanted.studies)
    if not studies:
        raise Missing("no study was corrected or agreed with yet", todo="correct some, or agree with their outlines")
    groups = sorted({study.group for study in studies}, key=lambda name: hashlib.sha256(name.encode()).digest())
    seen = set() if wanted.recipe else taught_before(workspace, base)
    count = 0
    if len(groups) > 1:
        count = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(groups))))
    apart = set([group for group in groups if group not in seen][:count])
    taught = [study for study in studies if study.group not in apart]
    if not taught:  # all others were held out: one patient is needed to teach with
        apart = set(list(apart)[:-1])
        taught = [study for study in studies if study.group not in apart]
    items = SLICES_OF_STUDY * (len(taught) + (phantom_count(len(taught)) if wanted.painted else 0))
    steps = min(MOST_STEPS, max(LEAST_STEPS, items // BATCH))
    epochs = wanted.epochs or EPOCHS
    if wanted.recipe:
        train = recipe_from_toml(wanted.recipe, "recipe").train
        epochs, steps = train.epochs, train.steps_per_epoch or max(1, items // train.batch)
    held_out = [study for study in studies if study.group in apart]
    return TeachingPlan(base, taught, held_out, epochs, steps)


def phantom_count(taught: int) -> int:
    """Phantoms beside so many studies: as many again, so that half of what is seen is synthetic."""
    return min(MOST_PHANTOMS, max(LEAST_PHANTOMS, taught))


def taught_before(workspace: Workspace, model: str) -> set[str]:
    """The patients that a model was taught with here, and the models that it was taught from."""
    groups: set[str] = set()
    seen: set[str] = set()
    while model not in seen and model not in box.names():
        seen.add(model)
        origin = workspace.models.info(model).origin
        if not origin.startswith(ORIGIN):
            break
        try:
            record = read_training(workspace, origin.removeprefix(ORIGIN))
        except Missing:
            break
        groups.update(record.groups)
        model = record.base
    return groups


def check_can_train() -> None:
    """Raises RunError that says what to install if torch or onnx is not there."""
    for package in ("torch", "onnx"):
        if find_spec(package) is None:
            missing = missing_extra(ModuleNotFoundError("missing", name=package), "teaching")
            assert missing is not None
            raise missing


def estimate(workspace: Workspace, wanted: TrainingRequest) -> TrainingEstimate:
    """How long a training takes here, from a few timed steps of the same network and usual times of the rest.

    Raises:
        Missing, InputError: as `plan_training`.
    """
    plan = plan_training(workspace, wanted)
    problems: list[str] = []
    if plan.held_out_patients < FEW_PATIENTS:
        problems.append(few_patients_text(plan.held_out_patients))
    minutes: float | None = None
    device = ""
    try:
        check_can_train()
        rate = step_rate(workspace, plan.base)
        seconds = plan.steps * plan.epochs * rate.seconds * _OVERHEAD + _REST_S
        seconds += len(plan.held_out) * (plan.epochs + 2) * _SCAN_S
        if wanted.painted:
            seconds += phantom_count(len(plan.taught)) * _PHANTOM_S
        minutes = round(seconds / 60, 1)
        device = rate.device
    except (RunError, InputError) as error:
        problems.append(str(error))
    return TrainingEstimate(
        studies=len(plan.taught),
        patients=plan.patients,
        held_out=plan.held_out_patients,
        epochs=plan.epochs,
        steps=plan.steps * plan.epochs,
        minutes=minutes,
        device=device,
        problems=problems,
    )


class StepRate(Schema):
    """Seconds of one step of a network on this machine."""

    seconds: float
    device: str


def step_rate(workspace: Workspace, model: str) -> StepRate:
    """The time of a step, measured once for each model, in a process of its own: the server keeps no torch in memory.

    Raises:
        InputError: if the model cannot be trained on.
        RunError: if it cannot be measured.
    """
    file = workspace.models.file(model)
    kept = workspace.folder / TRAININGS / f".rate-{file_digest(file)[:16]}.json"
    if kept.is_file():
        return StepRate.model_validate_json(kept.read_bytes())
    command = [sys.executable, "-m", "hemotorch.app.jobs.time_steps", str(file), str(BATCH)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMING_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RunError("timing a step took too long", model, "the machine is busy: try again later") from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        text = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise InputError(f"cannot be trained on here ({text[:300]})", model)
    rate = StepRate.model_validate_json(lines[-1])
    write_text(kept, rate.model_dump_json())
    return rate


def begin_training(workspace: Workspace, wanted: TrainingRequest, user: str) -> Teaching:
    """Puts a training into the queue.

    Raises:
        Conflict: if there is a training or a model of that name.
        Missing, InputError: as `plan_training`.
        RunError: if torch is not installed.
    """
    check_can_train()
    if training_folder(workspace, wanted.name).exists() or wanted.name in workspace.models.names():
        raise Conflict("there is a training or a model of that name already", wanted.name, "choose another name")
    plan = plan_training(workspace, wanted)
    record = TrainingRecord(
        name=wanted.name,
        base=plan.base,
        studies=[study.id for study in plan.taught],
        held_out=[study.id for study in plan.held_out],
        groups=sorted({study.group for study in plan.taught}),
        epochs=plan.epochs,
        steps=plan.steps,
        painted=wanted.painted,
        recipe=wanted.recipe,
        created=now(),
        user=user,
    )
    write_text(training_folder(workspace, wanted.name) / RECORD, record.model_dump_json(indent=2))
    title = f"Teach {wanted.name}"
    workspace.queue.add(JobKind.TRAIN, json.dumps({"name": wanted.name}), title, training=wanted.name, user=user)
    return show_training(workspace, wanted.name)


def training_folder(workspace: Workspace, name: str) -> Path:
    """Where a training lies."""
    return workspace.folder / TRAININGS / name


def read_training(workspace: Workspace, name: str) -> TrainingRecord:
    """What was asked for. Raises Missing if there is no training of that name."""
    try:
        return TrainingRecord.model_validate_json((training_folder(workspace, name) / RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise Missing("there is no such training", name[:64]) from error


def list_trainings(workspace: Workspace) -> list[Teaching]:
    """All trainings, the newest first."""
    names = [path.parent.name for path in (workspace.folder / TRAININGS).glob(f"*/{RECORD}")]
    shown = [show_training(workspace, name) for name in names]
    return sorted(shown, key=lambda training: training.created, reverse=True)


def show_training(workspace: Workspace, name: str) -> Teaching:
    """A training and how far it is. Raises Missing if there is none of that name."""
    record = read_training(workspace, name)
    folder = training_folder(workspace, name)
    row = workspace.database.row("SELECT id, state FROM job WHERE training = ? ORDER BY number DESC LIMIT 1", (name,))
    outcome = TrainingOutcome(comparison=[], note="", model="")
    if (folder / OUTCOME).is_file():
        outcome = TrainingOutcome.model_validate_json((folder / OUTCOME).read_bytes())
    pictures = []
    for picture in read_pictures(folder):
        url = f"/api/v1/trainings/{name}/slices/{picture.number}.png"
        pictures.append(ValidationSlice(study=picture.study, slice=picture.slice, url=url, epoch=picture.epoch))
    return Teaching(
        name=name,
        job="" if row is None else row["id"],
        state=JobState.FAILED if row is None else JobState(row["state"]),
        base=record.base,
        studies=record.studies,
        held_out=record.held_out,
        epochs=record.epochs,
        points=_points(folder / RUN / "metrics.jsonl"),
        slices=pictures,
        comparison=outcome.comparison,
        note=outcome.note,
        model=outcome.model,
        created=record.created,
    )


def read_pictures(folder: Path) -> list[PictureRecord]:
    """The pictures of a training that are there."""
    path = folder / SLICES / "slices.json"
    if not path.is_file():
        return []
    return [PictureRecord.model_validate(entry) for entry in json.loads(path.read_bytes())]


def few_patients_text(count: int) -> str:
    """What is said if few patients are held out."""
    if count == 0:
        return "no patient is held out: whether the new model is better on others cannot be said"
    shown = "1 patient is" if count == 1 else f"{count} patients are"
    return f"only {shown} held out: a difference on so few says little about others"


def _points(path: Path) -> list[EpochPoint]:
    points: list[EpochPoint] = []
    if not path.is_file():
        return points
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = build(EpochMetrics, json.loads(line), path)
        except (ValueError, InputError):  # a line that is being written
            break
        dice = None if row.val is None else row.val.get("dice")
        points.append(EpochPoint(epoch=row.epoch, loss=row.loss, dice=dice, seconds=row.seconds))
    return points
