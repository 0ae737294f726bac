"""What an engine starts: `train` with its arguments, once a rank; and how many ranks there can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hemotorch.data.dataset import Dataset
from hemotorch.errors import OptionError
from hemotorch.recipe import Recipe
from hemotorch.run import LAST, Run
from hemotorch.system import machine
from hemotorch.system.ranks import GO_ON
from hemotorch.training.loop import train
from hemotorch.training.resume import rank_timeout_s

RANKS_OF_A_CPU = 2  #: started where nobody says how many: one process uses all cores already


@dataclass(frozen=True)
class Training:
    """The arguments of `hemotorch.training.loop.train`, to be sent to other processes. Paths are made absolute."""

    data: str
    root: str
    recipe: Recipe | None
    device: str = "auto"
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("data", "root"):
            object.__setattr__(self, name, str(Path(getattr(self, name)).resolve()))

    @property
    def run(self) -> Run:
        """The run it trains."""
        return Run(Path(self.root))

    @property
    def timeout_s(self) -> float:
        """After which a rank that does not answer is given up."""
        return rank_timeout_s(self.run, self.recipe)

    def check(self) -> None:
        """Raises InputError where dataset or run folder cannot be used, before any rank is started."""
        Dataset(self.data)
        if not self.resume:
            self.run.must_be_new()

    def start(self) -> None:
        """Trains, as one of the ranks that the environment tells of."""
        train(self.data, self.root, self.recipe, device=self.device, resume=self.resume)

    def advice(self) -> str:
        """How to go on after a rank was lost."""
        kept = (self.run.root / LAST).exists()
        return GO_ON if kept else "start again"


@dataclass(frozen=True)
class Devices:
    """What a place has to compute on."""

    gpus: int
    cores: int
    place: str = "this machine"

    @staticmethod
    def here() -> Devices:
        """Those of this machine."""
        return Devices(torch.cuda.device_count(), machine.cores())

    def on_gpus(self, device: str) -> bool:
        """Whether processes asked to use `device` get a GPU each."""
        return self.gpus > 0 and device != "cpu"

    def ranks(self, asked: int | None, device: str) -> int:
        """How many ranks to start: one a GPU, else two, unless asked for otherwise.

        Raises OptionError for too many, and for GPUs where there are none.
        """
        return self._processes("ranks", asked, device, min(RANKS_OF_A_CPU, self.cores))

    def workers(self, asked: int | None, device: str) -> int:
        """How many processes predict: one a GPU, else one for two cores. Raises OptionError as `ranks` does."""
        return self._processes("workers", asked, device, max(1, self.cores // 2))

    def _processes(self, name: str, asked: int | None, device: str, without_gpus: int) -> int:
        if device.startswith("cuda") and not self.gpus:
            what = f"'{device}' was asked for, but {self.place} has no CUDA GPU"
            raise OptionError(what, "--device", "use --device cpu or auto")
        most, kind = (self.gpus, "GPU(s)") if self.on_gpus(device) else (self.cores, "core(s)")
        if asked is None:
            return self.gpus if self.on_gpus(device) else without_gpus
        if asked > most:
            todo = f"start at most {most}" + (", or use --device cpu" if self.on_gpus(device) else "")
            raise OptionError(f"{asked} {name} were asked for, but {self.place} has {most} {kind}", f"--{name}", todo)
        return asked
