"""The training loop, from top to bottom: epochs, batches, augmentation, forward, loss, backward, update, validation.

Everything random is a function of (seed, epoch, step, sample), and a checkpoint is exactly the state between two
steps, so a run that was killed ends with the weights of one that never was: bit for bit on a CPU with the same number
of threads and ranks. When checkpoints are written follows the clock; what they hold does not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hemotorch.data.dataset import Dataset
from hemotorch.errors import RunError
from hemotorch.evaluation.evaluate import summarise
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.torch_model import TorchModel
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.run import LAST, Run
from hemotorch.system.events import EpochEnd, Message, ProgressTask, Stopped, emit, ignore, listening
from hemotorch.system.files import jsonable
from hemotorch.system.metrics import EpochMetrics
from hemotorch.system.ranks import process_group
from hemotorch.training.autotune import autotune
from hemotorch.training.base_weights import load_base
from hemotorch.training.batches import Batch, batches
from hemotorch.training.job import Job, open_job, training_parts
from hemotorch.training.learner import Learner
from hemotorch.training.memory import loading_explained, memory_explained
from hemotorch.training.optimizer import learning_rate
from hemotorch.training.resume import decide_start, rank_timeout_s, run_record, session_of, start_message
from hemotorch.training.state import CheckpointWriter, State, load_state

LOSS_EVERY = 20  #: steps between two looks at the loss, each of which waits for the device
SHORT_S = 10.0  #: epochs shorter than this share a checkpoint: on a GPU writing it would take as long as they do


def train(
    data: Path | str,
    root: Path | str,
    recipe: Recipe | Path | str | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    weights: Path | str | None = None,
) -> Run:
    """Trains a recipe on a prepared dataset into a run folder.

    Started by torchrun, SLURM or Ray, each process is a rank and calls this alike; the first one writes, and emits
    `system.events`: what is trained, each step, each epoch. A listener that raises Stopped ends the training with a
    checkpoint of that very step.

    Args:
        data: the prepared dataset.
        root: the run folder.
        recipe: the name of one, a TOML file, or a `Recipe`. None takes the run's own when resuming, else `fast`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: go on with the run in `root`, with its own recipe, split and device settings; start it if there is none.
        weights: a run, a checkpoint or an ONNX file whose network a new run begins with; None begins from nothing.

    Raises:
        InputError, OptionError, RunError
    """
    run = Run(Path(root))
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe)
    with (
        process_group(rank_timeout_s(run, recipe)) as ranks,
        run.locked() if ranks.first else nullcontext(),
        nullcontext() if ranks.first else listening(ignore),
    ):
        ranks.barrier()  # the first rank holds the folder: nobody looks into it before
        dataset = Dataset(data)
        start = decide_start(run, dataset, recipe, device, resume, ranks)
        start.device.use()
        with loading_explained():
            training, validation = training_parts(start.split, start.recipe)
            job, net = open_job(
                dataset, training, validation, start.recipe, start.device, ranks, start.by_index, start.task
            )
            if weights is not None:
                load_base(net, weights)
        with memory_explained(job, net, run.root / LAST, steps):
            if start.tune:
                job = replace(job, device=autotune(job, net, steps))
            if ranks.first and not start.resumed:
                Run.create(run.root, job.recipe, run_record(job, start.split))
            state = load_state(job, run, net)
            if ranks.first and start.resumed and start.tune:
                run.add_session(session_of(job, state.epoch, state.step))
            if weights is not None and not (run.root / LAST).exists():
                # Whoever resumes it need not name the weights again.
                CheckpointWriter(job, run, state).save_last()
            emit(Message(start_message(job, state)))
            train_epochs(job, run, state)
    return run


def train_epochs(job: Job, run: Run, state: State) -> None:
    """Trains from `state` to the last epoch, and writes checkpoints and metrics."""
    writer = CheckpointWriter(job, run, state)
    steps_done = state.epoch * job.steps + state.step
    with ProgressTask("training", job.total, "step", steps_done) as task:
        try:
            while state.epoch < job.recipe.train.epochs:
                train_epoch(job, run, state, writer, task)
                row = end_epoch(job, run, state, writer)
                emit(EpochEnd(row))
        except Stopped:
            # Raised by who listens, always between two steps: the state is whole.
            check_finite(state.read_loss(), state, run)
            writer.read_clock()
            writer.save_last()
            raise


def train_epoch(job: Job, run: Run, state: State, writer: CheckpointWriter, task: ProgressTask) -> None:
    """Does the steps of the epoch that are not done yet."""
    for loss in steps(state.learner, state.epoch, state.step):
        state.add(loss)
        task.advance()
        if state.unread_steps < LOSS_EVERY and state.step < job.steps:
            continue
        job.ranks.barrier()  # a lost rank is noticed here, not by a GPU that waits for it
        check_finite(state.read_loss(), state, run)
        task.note = f"loss={state.loss_sum / state.step:.3f}"
        writer.read_clock()
        if state.step < job.steps and writer.due(job.recipe.train.checkpoint_s):
            writer.save_last()


def steps(learner: Learner, epoch: int, first: int = 0) -> Iterator[Tensor]:
    """Does the epoch's steps from number `first` on, one each time it is asked, and yields its loss, on the device."""
    job = learner.job
    accumulate = job.recipe.train.accumulate
    source = batches(job.slices, job.plan, epoch, job.device, job.ranks, first * accumulate)
    for step in range(first, job.steps):
        batches_of_step = list(itertools.islice(source, accumulate))
        learner.on_phase_end("data")
        learner.set_learning_rate(epoch * job.steps + step)
        yield learner.run(train_step, batches_of_step)


def train_step(learner: Learner, batches_of_step: Sequence[Batch]) -> Tensor:
    """One step of the optimiser, on the mean loss of its batches. Returns that loss, on the device."""
    job = learner.job
    share = 1 / len(batches_of_step)
    total = torch.zeros((), device=job.device.torch_device)
    for number, batch in enumerate(batches_of_step, 1):
        hu, target = learner.augment(batch)
        learner.on_phase_end("augment")
        learner.net.set_dropout_keys(batch.keys)
        with learner.gradient_exchange(last=number == len(batches_of_step)):
            with job.device.autocast():
                logits = learner.model(hu)
            # Sums add up over ranks, so that several of them have the loss that one would have.
            sums = job.ranks.all_sum(learner.loss_sums(logits, target))
            loss = job.loss.value(sums) * share
            learner.on_phase_end("forward")
            learner.scaled(loss).backward()
        learner.on_phase_end("backward")
        total = total + loss.detach()
    learner.update()
    learner.on_phase_end("optimiser")
    return total


def end_epoch(job: Job, run: Run, state: State, writer: CheckpointWriter) -> EpochMetrics:
    """Validates, writes the epoch's row and both checkpoints, and moves the state to the next epoch.

    Returns:
        The row, as it is in metrics.jsonl.
    """
    options, epoch = job.recipe.train, state.epoch + 1
    steps_done = epoch * job.steps
    due = writer.due(min(options.checkpoint_s, SHORT_S)) or epoch == options.epochs
    row = EpochMetrics(
        epoch=epoch,
        step=steps_done,
        loss=state.loss_sum / job.steps,
        lr=learning_rate(job.recipe.optimizer, steps_done - 1, job.total),
        seconds=round(state.seconds, 2),
    )
    score = None
    if job.validation and (epoch == options.epochs or epoch % options.validate_every == 0):
        validation = validate(job, state.learner, epoch)
        score = score_of(validation, options.best_by)
        row = replace(row, val=jsonable(validation))
        due = True
    best = options.best_by == "last" or not job.validation
    if score is not None:
        best = best or score >= state.best
        if best:
            state.best = score
    state.next_epoch()
    if best and due:
        writer.save_best(score)
    # Between the two: last.pt says that the epoch is done, and must not say so before its row is there.
    if job.ranks.first:
        run.drop_metrics(after_epoch=epoch - 1)
        run.add_metrics(row)
    if due:
        writer.save_last(score)
    return row


def validate(job: Job, learner: Learner, epoch: int) -> dict[str, float]:
    """The validation part predicted as `hemotorch predict` does it, and scored; the scans are shared by the ranks."""
    deployment = job.deployment_after(epoch)
    predictor = Predictor(TorchModel.of(learner.deployed.eval(), job.device, deployment), deployment)
    scores = summarise(predictor, job.dataset, job.validation, job.ranks)
    learner.net.train()
    return scores


def score_of(validation: dict[str, float], best_by: str) -> float:
    """What the best epoch is chosen by; the higher the better."""
    if not validation["n"]:
        # Scans without bleeding give no Dice: the fewer mL are outlined in them, the better.
        return -validation["fp_ml"]
    return validation["dice" if best_by == "last" else best_by]


def check_finite(loss: float, state: State, run: Run) -> None:
    """Raises RunError if the loss, or a weight or batch statistic after it, is not finite."""
    if math.isfinite(loss) and state.learner.is_finite():
        return
    if math.isfinite(loss):
        loss = math.nan  # what it will be in the next step
    todo = "train again with a lower optimizer.lr"
    if (run.root / LAST).exists():
        todo += f"; the checkpoints in {run.root} are from before it"
    else:
        todo += ", into another folder"
    raise RunError(f"the loss became {loss}", f"epoch {state.epoch + 1}, step {state.step}", todo)
