"""What the REST interface takes and gives, `/api/v1`. The pages' TypeScript types are made from these.

Times are ISO 8601 in UTC. Lengths are mm, volumes mL; None is "not known", never 0. Slices are counted from 0, foot to
head; rows from front to back; columns from the patient's right to left, as in `Scan`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Schema(BaseModel):
    """A value of the interface. Keys that it does not have are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Refusal(Schema):
    """What went wrong. what: a sentence. where: what it is about. todo: what to do about it, "" if nothing is known."""

    what: str
    where: str = ""
    todo: str = ""


class Role(StrEnum):
    """What a token allows."""

    READ = "read"
    WRITE = "write"


class ReaderSession(Schema):
    """Who is looking, and what this server can do.

    user: a name given by the hospital's proxy, or chosen in the page, or "". blind: this reader does not see other
    readers' versions of a study before saving one of their own. can_train: whether `hemotorch[train]` is installed;
    why_not says what is missing. show_patient: whether names and ids were asked for at the start.
    """

    user: str
    role: Role
    blind: bool
    show_patient: bool
    version: str
    notice: str
    model: str
    can_train: bool
    why_not: str
    folders: list[str] = Field(description="server folders that may be added or watched")
    max_upload_mb: int


class SessionChange(Schema):
    """What a reader may change of the own session; None leaves it as it is."""

    user: str | None = Field(default=None, max_length=80)
    blind: bool | None = None


class StudyDoubt(Schema):
    """What speaks against a prediction."""

    code: str
    text: str
    value: float | None = None


class ReadingState(StrEnum):
    """What a person said of a study."""

    UNREAD = "unread"
    AGREED = "agreed"
    WRONG = "wrong"
    UNSURE = "unsure"
    CORRECTED = "corrected"


class StudyStage(StrEnum):
    """How far the machine is with a study."""

    IMPORTED = "imported"
    WAITING = "waiting"
    PREDICTING = "predicting"
    PREDICTED = "predicted"
    FAILED = "failed"


class StudySummary(Schema):
    """A row of the worklist.

    id: a random pseudonym such as study-1a2b3c4d. patient: the patient's pseudonym, "" if it is not known. name: the
    file's or folder's own name; "" if names are hidden. date: of the scan, "" if names are hidden or none is stated.
    volume_ml: "total" and each type of the newest prediction or correction. problem: why the last job failed.
    """

    id: str
    patient: str
    name: str
    date: str
    added: str
    source: str = Field(description="DICOM, NIfTI ...")
    description: str
    slices: int
    stage: StudyStage
    state: ReadingState
    reader: str
    volume_ml: dict[str, float | None]
    interval_ml: tuple[float, float] | None
    doubts: list[StudyDoubt]
    problem: Refusal | None
    versions: int
    growth_ml: float | None = Field(description="since the patient's earlier study")
    revision: int = Field(description="raised with every change of the study")


class StudyPage(Schema):
    """A page of the worklist. next: where the next page begins, "" after the last."""

    studies: list[StudySummary]
    next: str
    total: int


class Layer(Schema):
    """A mask over a scan.

    id: "truth", "prediction:NAME" or "version:NUMBER". Its codes are those of `labels`; 6 is bleeding of no known type.
    has_probability: whether its probability map can be asked for.
    """

    id: str
    title: str
    kind: str = Field(description="truth, prediction or version")
    volume_ml: dict[str, float | None]
    slices_with_bleeding: list[int]
    has_probability: bool
    user: str
    time: str


class Piece(Schema):
    """A connected piece of a mask, largest first. centre: slice, row, column of a voxel in its middle."""

    ml: float | None
    kind: str
    centre: tuple[int, int, int]
    first_slice: int
    last_slice: int


class EarlierStudy(Schema):
    """An earlier study of the same patient. hours: between them. change_ml: of the bleeding since then."""

    id: str
    hours: float
    change_ml: float | None
    change_percent: float | None
    grown: bool
    note: str


class File(Schema):
    """What can be downloaded."""

    name: str
    title: str
    bytes: int
    url: str


class ScanGeometry(Schema):
    """Where a scan's voxels lie.

    shape: slices, rows, columns. pixel_mm: from row to row, from column to column. positions_mm: (slices,) of each
    slice along the normal, rising; uneven if slices are. voxel_ml: (slices,) of one voxel of each slice, None if the
    spacing is unknown.
    """

    shape: tuple[int, int, int]
    pixel_mm: tuple[float, float]
    positions_mm: list[float]
    voxel_ml: list[float | None]
    spacing_known: bool
    slice_numbers: list[int]


class Study(StudySummary):
    """A study with all that its page shows."""

    geometry: ScanGeometry
    layers: list[Layer]
    lesions: list[Piece] = Field(description="of the newest layer")
    warnings: list[str]
    remarks: list[str]
    abc2_ml: float | None
    longest_mm: float | None
    over_30_ml: bool | None
    earlier: list[EarlierStudy]
    files: list[File]
    note: str
    hidden_layers: int = Field(description="other readers' versions that a blind reader does not see yet")


class StudyChange(Schema):
    """What a reader says of a study; None leaves it as it is."""

    state: ReadingState | None = None
    note: str | None = Field(default=None, max_length=4000)


class UploadState(Schema):
    """How much of a file is there. A client that was cut off goes on from `offset`."""

    path: str
    offset: int
    bytes: int
    sha256: str = Field(description='of the whole file; "" until it is whole')
    done: bool


class UploadBatch(Schema):
    """Files that were uploaded together: one file, a folder, a zip."""

    id: str
    files: list[UploadState]
    imported: bool
    job: str


class ImportRequest(Schema):
    """What to look for scans in: an uploaded batch, or a folder or file of the server.

    predict: outline what is found at once.
    """

    batch: str = ""
    folder: str = ""
    predict: bool = True


class JobKind(StrEnum):
    """What a job does."""

    IMPORT = "import"
    PREDICT = "predict"
    EXPORT_VERSION = "export-version"
    DATASET = "dataset"
    TRAIN = "train"


class JobState(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AppJob(Schema):
    """A piece of work in a process of its own.

    done, total: in `unit`; total None if it is not known. problems: what could not be done of it, such as a file that
    is no scan. attempts: how often it was begun. study: the one that it is about, "" if none or several.
    """

    id: str
    kind: JobKind
    state: JobState
    title: str
    study: str
    training: str
    label: str
    done: int
    total: int | None
    unit: str
    problems: list[Refusal]
    problem: Refusal | None
    attempts: int
    created: str
    started: str
    ended: str
    user: str


class JobPage(Schema):
    """Jobs, newest first."""

    jobs: list[AppJob]
    next: str


class PredictRequest(Schema):
    """Which studies to outline.

    studies: empty for all that the model has not outlined yet. model: "" for the current one.
    """

    studies: list[str] = Field(default=[], max_length=10_000)
    model: str = ""


class Draft(Schema):
    """A reader's unsaved correction. revision: given back with the next save as If-Match, so that two tabs of one
    reader do not overwrite each other. base: the layer that it began from."""

    study: str
    base: str
    revision: int
    time: str


class VersionRequest(Schema):
    """The reader's draft becomes a version. after: the newest version that the reader has seen, 0 if none."""

    after: int = Field(ge=0)
    comment: str = Field(default="", max_length=4000)


class Version(Schema):
    """A saved correction; never changed again."""

    number: int
    study: str
    user: str
    time: str
    comment: str
    base: str
    volume_ml: dict[str, float | None]
    changed_ml: float | None = Field(description="mL in which it differs from its base")


class LayerComparison(Schema):
    """Two layers of a study. dice: of all bleeding, and of each type that one of them has; None if neither has any."""

    a: str
    b: str
    dice: dict[str, float | None]
    a_ml: dict[str, float | None]
    b_ml: dict[str, float | None]
    only_a_ml: float | None
    only_b_ml: float | None


class MeasurementKind(StrEnum):
    """What is measured."""

    RULER = "ruler"
    ANGLE = "angle"
    CIRCLE = "circle"


class Measurement(Schema):
    """What a reader measured. plane: axial, coronal or sagittal. index: of the slice in that plane. points: in mm of
    that plane, from its upper left corner: two of a ruler, three of an angle, middle and edge of a circle."""

    kind: MeasurementKind
    plane: str = Field(pattern="^(axial|coronal|sagittal)$")
    index: int = Field(ge=0)
    points: list[tuple[float, float]] = Field(min_length=2, max_length=3)
    text: str = Field(default="", max_length=400)


class Measurements(Schema):
    """All of a reader's measurements in a study. revision: see Draft."""

    items: list[Measurement] = Field(max_length=500)
    revision: int = 0


class DatasetRequest(Schema):
    """A dataset of corrected studies. studies: empty for all that are corrected or agreed with."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    studies: list[str] = Field(default=[], max_length=10_000)


class CorrectedSet(Schema):
    """A folder that `hemotorch prepare` takes."""

    name: str
    time: str
    studies: list[str]
    patients: int
    path: str


class ModelInfo(Schema):
    """A model. current: whether new studies are outlined with it. card: its model card, None if it has none."""

    name: str
    title: str
    current: bool
    sha256: str
    megabytes: float
    origin: str = Field(description="in the box, or the training that made it")
    card: dict[str, Any] | None


class TrainingRequest(Schema):
    """A model is taught with corrected studies.

    studies: empty for all that are corrected or agreed with. base: a model, "" for the current one. epochs: 0 for as
    many as the estimate suggests. painted: also paint bleeding into the normal ones, and add phantoms, so that few
    corrections do not spoil it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    studies: list[str] = Field(default=[], max_length=10_000)
    base: str = ""
    epochs: int = Field(default=0, ge=0, le=1000)
    painted: bool = True
    recipe: str = Field(default="", max_length=100_000, description="TOML; for a full training in place of teaching")


class TrainingEstimate(Schema):
    """What a training would take on this machine. minutes: None if it was not measured yet."""

    studies: int
    patients: int
    held_out: int
    epochs: int
    steps: int
    minutes: float | None
    device: str
    problems: list[str]


class EpochPoint(Schema):
    """A point of the curves."""

    epoch: int
    loss: float
    dice: float | None
    seconds: float


class ValidationSlice(Schema):
    """A slice that is looked at again after each epoch: a picture with truth and the network's outline."""

    study: str
    slice: int
    url: str
    epoch: int


class PairedScore(Schema):
    """Old against new on the patients that neither has seen. difference: new minus old; ci95: its paired interval."""

    metric: str
    scans: int
    patients: int
    old: float | None
    new: float | None
    difference: float | None
    ci95: tuple[float, float] | None


class Teaching(Schema):
    """A training and how far it is. note: what is to be said of the comparison, such as how few patients it has."""

    name: str
    job: str
    state: JobState
    base: str
    studies: list[str]
    held_out: list[str]
    epochs: int
    points: list[EpochPoint]
    slices: list[ValidationSlice]
    comparison: list[PairedScore]
    note: str
    model: str = Field(description='the model that it made, "" until it has made one')
    created: str


class RecipeKey(Schema):
    """A field of a recipe's form."""

    key: str
    values: str
    unit: str
    default: Any
    help: str
    choices: list[Any]
    minimum: float | None
    maximum: float | None


class AuditLine(Schema):
    """Who did what to which study."""

    time: str
    user: str
    action: str
    study: str
    detail: str


class AuditPage(Schema):
    """The audit log, newest first."""

    lines: list[AuditLine]
    next: str


class FolderEntry(Schema):
    """What is in a server's folder."""

    name: str
    path: str
    is_folder: bool


class Watch(Schema):
    """A server's folder that is looked through every `seconds`; new scans in it are added and outlined."""

    folder: str
    seconds: int = Field(default=30, ge=2, le=3600)
