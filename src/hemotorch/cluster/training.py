"""What an engine starts: `train` with its arguments, once per rank; and how many ranks there can be."""

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

RANKS_OF_A_CPU = 2  #: started if nobody says how many: one process uses all cores already


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
        """Raises InputError if dataset or run folder cannot be used, before any rank is started."""
        Dataset(self.data)
        if not self.resume:
            self.run.must_be_new()

    def start(self) -> None:
        """Trains, as one of the ranks that the environment tells of."""
        train(self.data, self.root, self.recipe, device=self.device, resume=self.resume)

    def advice(self) -> str:
        """How to go on after a rank was lost."""
        if (self.run.root / LAST).exists():
            return GO_ON
        return "start again"


@dataclass(frozen=True)
class Devices:
    """What there is to compute on. owner: whose it is, as messages name it."""

    gpus: int
    cores: int
    owner: str = "this machine"

    @staticmethod
    def here() -> Devices:
        """Those of this machine."""
        return Devices(torch.cuda.device_count(), machine.cores())

    def on_gpus(self, device: str) -> bool:
        """Whether processes that shall use `device` get a GPU each."""
        return self.gpus > 0 and device != "cpu"

    def ranks(self, wanted: int | None, device: str) -> int:
        """How many ranks to start: one per GPU, or two if there is none, unless a number is wanted.

        Raises:
            OptionError: for more than there are GPUs or cores, and for GPUs if there are none.
        """
        return self._processes("ranks", wanted, device, min(RANKS_OF_A_CPU, self.cores))

    def workers(self, wanted: int | None, device: str) -> int:
        """How many processes predict: one per GPU, or one per two cores. Raises OptionError as `ranks` does."""
        return self._processes("workers", wanted, device, max(1, self.cores // 2))

    def _processes(self, name: str, wanted: int | None, device: str, without_gpus: int) -> int:
        if device.startswith("cuda") and not self.gpus:
            what = f"'{device}' was asked for, but {self.owner} has no CUDA GPU"
            raise OptionError(what, "--device", "use --device cpu or auto")
        if self.on_gpus(device):
            most, default, unit = self.gpus, self.gpus, "GPU(s)"
            todo = f"start at most {most}, or use --device cpu"
        else:
            most, default, unit = self.cores, without_gpus, "core(s)"
            todo = f"start at most {most}"
        if wanted is None:
            return default
        if wanted > most:
            what = f"{wanted} {name} were asked for, but {self.owner} has {most} {unit}"
            raise OptionError(what, f"--{name}", todo)
        return wanted
