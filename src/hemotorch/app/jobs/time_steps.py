"""Times a few steps of teaching: `python -m hemotorch.app.jobs.time_steps FILE BATCH`, in a process of its own.

Prints JSON: seconds of a step, and the device.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from hemotorch import nets
from hemotorch.app.jobs.teach_recipe import crop_px
from hemotorch.errors import HemotorchError
from hemotorch.training.base_weights import base_network, load_base

STEPS = 3


def main() -> int:
    """Times the steps. Returns the exit status."""
    file, batch = sys.argv[1], int(sys.argv[2])
    try:
        base = base_network(file)
        net = nets.build_for(base.deployment.task, base.name, base.options)
        load_base(net, file)
    except HemotorchError as error:
        print(error, file=sys.stderr)
        return 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = net.to(device).train()
    side = crop_px(base.deployment, net.multiple) or 256
    optimizer = torch.optim.AdamW(net.parameters())
    hu = torch.randn(batch, net.slices, side, side, device=device) * 40
    began = 0.0
    for step in range(STEPS + 1):
        if step == 1:  # the first one also sets things up
            began = _now(device)
        optimizer.zero_grad()
        net(hu).square().mean().backward()
        optimizer.step()
    seconds = (_now(device) - began) / STEPS
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(json.dumps({"seconds": seconds, "device": name}))
    return 0


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
