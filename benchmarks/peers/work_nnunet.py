"""nnU-Net v2, configuration 2d: its planning and preprocessing, its trainer and its predictor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.child import Job, Recorder, begin, network_size

NAME = "Dataset001_Bleeding"
BATCH, ITERATIONS, VALIDATION_ITERATIONS = 12, 25, 1


def main() -> None:
    """Plans, then trains until the time is up."""
    job, recorder = begin()
    folders = {kind: job.work / kind for kind in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    os.environ.update({kind: str(folder) for kind, folder in folders.items()})
    os.environ.update({"nnUNet_n_proc_DA": str(job.cores)})
    began = time.time()
    write_dataset(job, folders["nnUNet_raw"] / NAME)
    plan(job)
    preprocessed = folders["nnUNet_preprocessed"] / NAME
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": job.train, "val": job.val}]))
    preparing_s = time.time() - began
    recorder.pause(preparing_s)
    trained = train(job, recorder, preprocessed)
    trained.set_deep_supervision_enabled(False)
    about = network_size(trained.network, 1, max(trained.configuration_manager.patch_size))
    recorder.finish(
        ("nnunetv2", "torch", "numpy"),
        image_px=max(trained.configuration_manager.patch_size),
        batch=trained.batch_size,
        preparing_s=preparing_s,
        notes=[f"planned were batches of {trained.planned_batch}, used {trained.batch_size}"],
        **about,
    )
    sys.stdout.flush()
    os._exit(0)  # its augmenting processes and their threads would not end by themselves


def write_dataset(job: Job, raw: Path) -> None:
    """The training and validation cases in nnU-Net's layout."""
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    cases = job.train + job.val
    for case in cases:
        shutil.copyfile(job.file("hu", case), raw / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copyfile(job.file("mask", case), raw / "labelsTr" / f"{case}.nii.gz")
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "bleeding": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about))


def plan(job: Job) -> None:
    """Its own command."""
    command = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
    few = str(job.cores)
    options = ["-d", "1", "-c", "2d", "--verify_dataset_integrity", "-npfp", few, "-np", few, "--no_pbar"]
    subprocess.run([str(command), *options], check=True)


class TimeIsUp(Exception):
    """Leaves the trainer's loop, which knows no other end than its last epoch."""


def train(job: Job, recorder: Recorder, preprocessed: Path) -> Any:
    """Its trainer, told only what is listed in contenders.py."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Trainer(nnUNetTrainer):
        def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
            self.lr_scheduler.step(recorder.share * self.num_epochs)
            losses = super().train_step(batch)
            recorder.step(len(batch["data"]), float(losses["loss"]))
            if recorder.due:
                recorder.point(lambda: outlined(job, self))
            if recorder.over:
                raise TimeIsUp
            return losses

    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    planned = plans["configurations"]["2d"]["batch_size"]
    plans["configurations"]["2d"]["batch_size"] = min(BATCH, planned)
    plans["continue_training"] = False
    about = json.loads((preprocessed / "dataset.json").read_text())
    trainer = Trainer(plans, "2d", 0, about, torch.device("cpu"))
    trainer.planned_batch = planned
    trainer.num_iterations_per_epoch = ITERATIONS
    trainer.num_val_iterations_per_epoch = VALIDATION_ITERATIONS
    trainer.initialize()
    recorder.start()
    with suppress(TimeIsUp):
        trainer.run_training()
    return trainer


def outlined(job: Job, trainer: Any) -> dict[str, np.ndarray]:
    """Masks of the held-out scans by its predictor with its defaults, mirroring included."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    masks = {}
    for case in job.test:
        image, properties = SimpleITKIO().read_images([str(job.file("hu", case))])
        masks[case] = predictor.predict_single_npy_array(image, properties)
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    trainer.network.train()
    return masks


if __name__ == "__main__":
    main()
