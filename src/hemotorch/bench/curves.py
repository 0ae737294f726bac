"""One learning curve: scikit-learn's handwritten digits with a multilayer perceptron, or the bleeding of a prepared
dataset with a network of `hemotorch.nets` through the same step as every training."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.bench.clock import waiter
from hemotorch.bench.data import held_out, training_part
from hemotorch.data.dataset import Dataset
from hemotorch.errors import InputError, RunError
from hemotorch.recipe import Recipe, recipe_from_toml
from hemotorch.system.device import Device, choose
from hemotorch.system.ranks import Ranks
from hemotorch.training.augment import augment
from hemotorch.training.batches import batches
from hemotorch.training.job import open_job
from hemotorch.training.learner import Learner, endless
from hemotorch.training.loop import steps

#: Of the digits' perceptron; the pixel windows' is `nets.mlp`.
HIDDEN = (64, 32)
DIGITS_BATCH = 64
#: Every fourth digit is not trained on.
TESTED = 4
SQUARE_BATCHES = 6  #: of squares, for a value
OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
    "Adam": torch.optim.Adam,
}


@dataclass(frozen=True)
class CurveSpec:
    """task: "digits", or "slices" of `data` with `recipe` (TOML). points: how often the value is looked at."""

    task: str
    algorithm: str
    device: str
    steps: int
    points: int
    lr: float
    data: str = ""
    recipe: str = ""
    seed: int = 0


def measure_curve(spec: CurveSpec) -> dict[str, tuple[float, ...]]:
    """Steps, seconds, loss and value of one run, as in `records.Curve`. Raises InputError, OptionError, RunError."""
    return digits_curve(spec) if spec.task == "digits" else slices_curve(spec)


def follow(
    step: Callable[[], Tensor], value: Callable[[], float], wait: Callable[[], None], spec: CurveSpec
) -> dict[str, tuple[float, ...]]:
    """Does all steps, and looks at the value between them with the clock stopped.

    Raises:
        RunError: if the loss is no number any more.
    """
    # Closer together at the start, where most is learned.
    looks = sorted({max(1, round(spec.steps * (n / spec.points) ** 2)) for n in range(1, spec.points + 1)})
    done, seconds, rows = 0, 0.0, []
    for look in looks:
        wait()
        start = time.perf_counter()
        total = sum((step() for _ in range(look - done)), torch.zeros(()))
        wait()
        seconds += time.perf_counter() - start
        loss = float(total) / (look - done)
        if not math.isfinite(loss):
            raise RunError(f"the loss became {loss}", f"step {look}", "lower its learning rate")
        rows.append((look, seconds, loss, value()))
        done = look
    return dict(zip(("steps", "seconds", "loss", "value"), zip(*rows, strict=True), strict=True))


def digits_curve(spec: CurveSpec) -> dict[str, tuple[float, ...]]:
    """A perceptron on 8 x 8 pixels of ten digits; the digits come with scikit-learn."""
    from sklearn.datasets import load_digits

    device = torch.device(spec.device)
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32, device=device)
    labels = torch.tensor(digits, device=device)
    tested = torch.arange(len(images), device=device) % TESTED == 0
    train_images, train_labels = images[~tested], labels[~tested]
    torch.manual_seed(spec.seed)
    net = perceptron(images.shape[1], 10).to(device)
    optimizer = OPTIMIZERS[spec.algorithm](net.parameters(), spec.lr)
    # Of its own, so that batches do not depend on how the network is initialised.
    generator = torch.Generator().manual_seed(spec.seed)

    def step() -> Tensor:
        chosen = torch.randint(len(train_images), (DIGITS_BATCH,), generator=generator).to(device)
        loss = F.cross_entropy(net(train_images[chosen]), train_labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def accuracy() -> float:
        return float((net(images[tested]).argmax(1) == labels[tested]).float().mean())

    return follow(step, accuracy, waiter(device), spec)


def perceptron(inputs: int, outputs: int) -> nn.Module:
    """Fully connected layers with ReLU between them."""
    widths = (inputs, *HIDDEN, outputs)
    layers: list[nn.Module] = []
    for source, target in itertools.pairwise(widths):
        layers += [nn.Linear(source, target), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def slices_curve(spec: CurveSpec) -> dict[str, tuple[float, ...]]:
    """A network on squares around bleeding; its value is the Dice on such squares of patients that were not trained on.

    Nothing is chosen by it, so that test patients may be among them: a small dataset has few others.
    """
    recipe, dataset = recipe_from_toml(spec.recipe, "recipe"), Dataset(spec.data)
    device = choose(spec.device, recipe.engine)
    device.use()
    # The same, whatever the seed of the training.
    squares = _squares(dataset, recipe.changed(["train.seed=0"]), device)
    seeded = recipe.changed([f"train.seed={spec.seed}"])
    job, net = open_job(dataset, training_part(dataset, recipe), {}, seeded, device, Ranks())
    learner = Learner(job, net)
    losses = endless(learner, steps)

    @torch.no_grad()
    def dice() -> float:
        deployed = learner.deployed.eval()
        both = total = 0
        for hu, truth in squares:
            predicted = deployed(hu) > 0
            both += int((predicted & truth).sum())
            total += int(predicted.sum()) + int(truth.sum())
        learner.net.train()
        return 2 * both / total

    return follow(lambda: next(losses), dice, waiter(device.torch_device), spec)


def _squares(dataset: Dataset, recipe: Recipe, device: Device) -> list[tuple[Tensor, Tensor]]:
    """HU and bleeding of some batches of what is not trained on, as the network sees them.

    Raises:
        InputError: if they hold no bleeding.
    """
    job, _ = open_job(dataset, held_out(dataset, recipe), {}, recipe, device, Ranks())
    squares = []
    for batch in itertools.islice(batches(job.slices, job.plan, 0, device), SQUARE_BATCHES):
        hu, target = augment(batch.hu, batch.target, batch.rows, recipe.augment, batch.keys)
        squares.append((hu.contiguous(memory_format=device.memory_format), target > 0))
    if not any(bool(truth.any()) for _, truth in squares):
        raise InputError("the squares that are not trained on hold no bleeding", dataset.root, "prepare more scans")
    return squares
