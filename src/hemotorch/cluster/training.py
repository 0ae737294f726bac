"""What an engine starts: `train` with its arguments, once a rank; and how many ranks there can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hemotorch.dataset import Dataset
from hemotorch.errors import OptionError
from hemotorch.recipe import Recipe
from hemotorch.run import LAST, Run
from hemotorch.train import Report, train

RANKS_OF_A_CPU = 2  #: started where nobody says how many: one process uses all cores already


@dataclass(frozen=True)
class Training:
    """The arguments of `hemotorch.train.train`, to be sent to other processes. Paths are made absolute."""

    data: str
    root: str
    used: Recipe | None
    device: str = "auto"
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("data", "root"):
            object.__setattr__(self, name, str(Path(getattr(self, name)).resolve()))

    @property
    def run(self) -> Run:
        """The run it trains."""
        return Run(Path(self.root))

    def check(self) -> None:
        """Raises InputError where dataset or run folder cannot be used, before any rank is started."""
        Dataset(self.data)
        if not self.resume:
            self.run.must_be_new()

    def start(self, report: Report | None = None) -> None:
        """Trains, as one of the ranks that the environment tells of."""
        train(self.data, self.root, self.used, device=self.device, resume=self.resume, report=report)

    def advice(self) -> str:
        """How to go on after a rank was lost."""
        kept = (self.run.root / LAST).exists()
        return "go on from the last checkpoint with --resume, with as many ranks as you like" if kept else "start again"


def ranks_for(asked: int | None, device: str, gpus: int, cores: int, place: str) -> int:
    """How many ranks to start on a place with so many devices: one a GPU, else two a CPU, unless asked for otherwise.

    Raises OptionError where there are fewer devices than were asked for.
    """
    on_gpus = gpus > 0 and device != "cpu"
    most, kind = (gpus, "GPU(s)") if on_gpus else (cores, "core(s)")
    if asked is None:
        return gpus if on_gpus else min(RANKS_OF_A_CPU, cores)
    if asked > most:
        todo = f"start at most {most}" + (", or use --device cpu" if on_gpus else "")
        raise OptionError(f"{asked} ranks were asked for, but {place} has {most} {kind}", "--ranks", todo)
    return asked
