"""One learning curve in a fresh process: `python -m hemotorch.bench.curves SPEC.json` prints it as a line of JSON.

Two tasks: scikit-learn's handwritten digits with a multilayer perceptron, and the bleeding of a prepared dataset with a
network of `hemotorch.nets` through the same step as every training.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.bench.children import end_with_parent
from hemotorch.bench.clock import waiter
from hemotorch.bench.data import held_out
from hemotorch.bench.rows import from_json
from hemotorch.data.dataset import Dataset
from hemotorch.errors import HemotorchError, InputError, RunError
from hemotorch.recipe import Recipe, recipe_from_toml
from hemotorch.system.device import Device, choose
from hemotorch.system.files import jsonable, read_json
from hemotorch.system.ranks import Ranks
from hemotorch.training.augment import augment
from hemotorch.training.batches import batches
from hemotorch.training.learner import Learner, endless, open_job, training_parts
from hemotorch.training.loop import steps

HIDDEN = (64, 32)  #: of the digits' perceptron; the pixel windows' is `nets.mlp`
DIGITS_BATCH = 64
TESTED = 4  #: every fourth digit is not trained on
LOOKED_AT = 6  #: batches of squares


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


@dataclass(frozen=True)
class Curve:
    """steps, seconds: where it was looked at, looking not counted; loss: mean since the last look; value: accuracy on
    digits, Dice on slices, both of what was not trained on."""

    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    loss: tuple[float, ...]
    value: tuple[float, ...]


def followed(
    step: Callable[[], Tensor], value: Callable[[], float], wait: Callable[[], None], spec: CurveSpec
) -> Curve:
    """Does all steps, and looks at the value between them with the clock stopped. Raises RunError where the loss is no
    number any more."""
    # Closer together at the start, where most is learned.
    marks = sorted({max(1, round(spec.steps * (n / spec.points) ** 2)) for n in range(1, spec.points + 1)})
    done, seconds, rows = 0, 0.0, []
    for mark in marks:
        wait()
        began = time.perf_counter()
        total = sum((step() for _ in range(mark - done)), torch.zeros(()))
        wait()
        seconds += time.perf_counter() - began
        if not math.isfinite(loss := float(total) / (mark - done)):
            raise RunError(f"the loss became {loss}", f"step {mark}", "lower its learning rate")
        rows.append((mark, seconds, loss, value()))
        done = mark
    return Curve(*zip(*rows, strict=True))


def digits_curve(spec: CurveSpec) -> Curve:
    """A perceptron on 8 x 8 pixels of ten digits; the digits come with scikit-learn."""
    from sklearn.datasets import load_digits

    device = torch.device(spec.device)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32, device=device)
    y = torch.tensor(labels, device=device)
    tested = torch.arange(len(x), device=device) % TESTED == 0
    train_x, train_y, test_x, test_y = x[~tested], y[~tested], x[tested], y[tested]
    torch.manual_seed(spec.seed)
    net = perceptron(x.shape[1], 10).to(device)
    optimizer = OPTIMIZERS[spec.algorithm](net.parameters(), spec.lr)
    generator = torch.Generator().manual_seed(spec.seed)

    def step() -> Tensor:
        chosen = torch.randint(len(train_x), (DIGITS_BATCH,), generator=generator).to(device)
        loss = F.cross_entropy(net(train_x[chosen]), train_y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def accuracy() -> float:
        return float((net(test_x).argmax(1) == test_y).float().mean())

    return followed(step, accuracy, waiter(device), spec)


def perceptron(inputs: int, outputs: int) -> nn.Module:
    """Fully connected layers with ReLU between them."""
    widths = (inputs, *HIDDEN, outputs)
    layers: list[nn.Module] = []
    for source, target in itertools.pairwise(widths):
        layers += [nn.Linear(source, target), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda parameters, lr: torch.optim.SGD(parameters, lr),
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
    "Adam": lambda parameters, lr: torch.optim.Adam(parameters, lr),
}


def slices_curve(spec: CurveSpec) -> Curve:
    """A network on squares around bleeding; its value is the Dice on such squares of patients that were not trained on.

    Nothing is chosen by it, so that test patients may be among them: a small dataset has few others.
    """
    recipe, dataset = recipe_from_toml(spec.recipe, "recipe"), Dataset(spec.data)
    device = choose(spec.device, recipe.engine)
    device.use()
    squares = _squares(dataset, recipe.changed(["train.seed=0"]), device)  # the same, whatever the seed of the training
    training, _ = training_parts(dataset.split(recipe.data.split), recipe)
    job, net = open_job(dataset, training, {}, recipe.changed([f"train.seed={spec.seed}"]), device, Ranks())
    learner = Learner(job, net)
    moving = endless(learner, steps)

    @torch.no_grad()
    def dice() -> float:
        net = learner.deployed.eval()
        sums = [_overlap(net(hu), target) for hu, target in squares]
        learner.net.train()
        both, total = (sum(values) for values in zip(*sums, strict=True))
        return 2 * both / total

    return followed(lambda: next(moving), dice, waiter(device.torch_device), spec)


def _squares(dataset: Dataset, recipe: Recipe, device: Device) -> list[tuple[Tensor, Tensor]]:
    """HU and mask of some batches of what is not trained on, as the network sees them. Raises InputError where they
    hold no bleeding."""
    job, _ = open_job(dataset, held_out(dataset, recipe), {}, recipe, device, Ranks())
    found = []
    for part in itertools.islice(batches(job.slices, job.plan, 0, device), LOOKED_AT):
        hu, target = augment(part.hu, part.target, part.rows, recipe.augment, part.keys)
        found.append((hu.contiguous(memory_format=device.memory_format), target))
    if not any(bool((target > 0).any()) for _, target in found):
        raise InputError("the squares that are not trained on hold no bleeding", dataset.root, "prepare more scans")
    return found


def _overlap(logits: Tensor, target: Tensor) -> tuple[int, int]:
    """Pixels in both, and in the one plus in the other."""
    found, truth = logits > 0, target > 0
    return int((found & truth).sum()), int(found.sum()) + int(truth.sum())


def main(arguments: list[str]) -> int:
    """Prints one line of JSON; an explained error goes to stderr in one line."""
    end_with_parent()
    spec = from_json(CurveSpec, read_json(arguments[0]))
    try:
        found = digits_curve(spec) if spec.task == "digits" else slices_curve(spec)
    except HemotorchError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(jsonable(asdict(found))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
