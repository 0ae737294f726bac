"""Lightning: a LightningModule as in MONAI's Lightning tutorial, and a Trainer with its defaults."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from monai.utils import set_determinism

from peers import monai_parts
from peers.child import Job, Recorder, begin, network_size


class Module(lightning.LightningModule):
    """The network, its loss and its optimiser."""

    def __init__(self, job: Job):
        super().__init__()
        self.job = job
        self.net = monai_parts.network()
        self.loss_function = monai_parts.loss(job.options["loss"])

    def train_dataloader(self) -> Any:
        return monai_parts.training_loader(self.job)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), self.job.options["rate"])

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.loss_function(self.net(batch["image"]), batch["label"])


class Watch(lightning.Callback):
    """Keeps the record and ends the training when the time is up."""

    def __init__(self, job: Job, recorder: Recorder):
        self.job, self.recorder = job, recorder

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.recorder.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.recorder.step(len(batch["image"]), float(outputs["loss"]))
        if self.recorder.due:
            self.recorder.point(lambda: monai_parts.outlined(self.job, module.net))
        trainer.should_stop = self.recorder.over


def main() -> None:
    """Trains until the time is up. Options: loss, rate."""
    job, recorder = begin()
    set_determinism(seed=job.seed)
    module = Module(job)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        default_root_dir=job.work,
        callbacks=[Watch(job, recorder)],
        enable_progress_bar=False,
    )
    trainer.fit(module)
    about = network_size(module.net, 1, -(-job.side_px // 16) * 16)
    packages = ("lightning", "monai", "torch", "numpy")
    recorder.finish(packages, image_px=monai_parts.CROP_PX, batch=monai_parts.BATCH, **about)


if __name__ == "__main__":
    main()
