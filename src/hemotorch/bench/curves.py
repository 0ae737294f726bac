"""One learning curve in a fresh process: `python -m hemotorch.bench.curves SPEC.json` prints it as a line of JSON.

Two tasks: scikit-learn's handwritten digits with a multilayer perceptron, and the bleeding of a prepared dataset with a
network of `hemotorch.nets` through the same step as every training.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.bench.children import end_with_parent
from hemotorch.bench.clock import waiter
from hemotorch.bench.rows import from_json
from hemotorch.dataset import Dataset
from hemotorch.device import choose
from hemotorch.errors import HemotorchError
from hemotorch.evaluate import summarise
from hemotorch.files import jsonable, read_json
from hemotorch.predict import Predictor
from hemotorch.ranks import Ranks
from hemotorch.recipe import from_toml
from hemotorch.step import Learner, open_job
from hemotorch.train import parts

HIDDEN = (64, 32)  #: of the digits' perceptron; the pixel windows' is `nets.mlp`
DIGITS_BATCH = 64
TESTED = 4  #: every fourth digit is not trained on


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
    """Does all steps, and looks at the value between them with the clock stopped."""
    # Closer together at the start, where most is learned.
    marks = sorted({max(1, round(spec.steps * (n / spec.points) ** 2)) for n in range(1, spec.points + 1)})
    done, seconds, rows = 0, 0.0, []
    for mark in marks:
        wait()
        began = time.perf_counter()
        total = sum((step() for _ in range(mark - done)), torch.zeros(()))
        wait()
        seconds += time.perf_counter() - began
        rows.append((mark, seconds, float(total) / (mark - done), value()))
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
    """A network on slices, validated as a training validates it."""
    used, dataset = from_toml(spec.recipe, "recipe"), Dataset(spec.data)
    device = choose(spec.device, used.engine)
    device.use()
    training, validation = parts(dataset.split(used.data.split), used)
    job, net = open_job(dataset, training, validation, used, device, Ranks())
    learner = Learner(job, net)
    endless = itertools.chain.from_iterable(map(learner.epoch, itertools.count()))

    def dice() -> float:
        model = Predictor(learner.deployed.eval(), used, device, used.name)
        found = summarise(model, dataset, validation)
        learner.net.train()
        return float(found["dice"])

    return followed(lambda: next(endless), dice, waiter(device.place), spec)


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
