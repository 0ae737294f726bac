"""What jobs do, one module for each kind. A module is imported by the worker that does such a job, and by nobody else.

endings         what the end of a job changes elsewhere
export_version  a version as NIfTI, as DICOM SEG, in numbers
import_scans    finds scans and adds them as studies
predict_study   outlines the bleeding in a study
requests        what each kind is told
teach_model     teaches a network, and compares it with the old one
teach_recipe    the recipe that it is taught with
time_steps      how long a step takes here
write_dataset   corrected studies as a folder that `hemotorch prepare` takes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from hemotorch.app.queue import LeasedJob
from hemotorch.app.schemas import JobKind, Refusal
from hemotorch.errors import HemotorchError, RunError

if TYPE_CHECKING:
    from hemotorch.app.workspace import Workspace


@dataclass(frozen=True)
class Work:
    """A job that is under way, and where."""

    workspace: Workspace
    job: LeasedJob

    def add_problem(self, error: HemotorchError) -> None:
        """Notes what could not be done, of a job that goes on."""
        self.workspace.queue.add_problem(self.job, refusal(error))


def refusal(error: HemotorchError) -> Refusal:
    """An error as the interface shows it."""
    return Refusal(what=error.what, where=error.where or "", todo=error.todo or "")


#: The module that does jobs of each kind, by its `run`.
_MODULES = {
    JobKind.IMPORT: "import_scans",
    JobKind.PREDICT: "predict_study",
    JobKind.EXPORT_VERSION: "export_version",
    JobKind.DATASET: "write_dataset",
    JobKind.TRAIN: "teach_model",
}


def run_job(work: Work) -> None:
    """Does a job, and ends it in the queue together with what it changes.

    Raises:
        HemotorchError: if it cannot be done.
        LeaseLost: if another process has the job.
        Stopped: if it was cancelled.
    """
    run: Callable[[Work], None] = _module(work.job.kind).run
    run(work)


def import_modules(kinds: Sequence[JobKind]) -> None:
    """Imports what does jobs of these kinds, while a worker waits for one. What needs torch is left for the job."""
    for kind in kinds:
        if kind in _MODULES and kind != JobKind.TRAIN:
            _module(kind)


def _module(kind: JobKind) -> ModuleType:
    if kind not in _MODULES:
        raise RunError(f"nothing does jobs of the kind '{kind}'")
    return import_module(f"hemotorch.app.jobs.{_MODULES[kind]}")
