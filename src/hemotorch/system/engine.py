"""What a recipe asks of the machine: how a network is computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hemotorch.system.records import SECONDS, record
from hemotorch.system.threads import MOST

Switch = Literal["auto", "on", "off"]
WantedPrecision = Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp64"]


@record
class Engine:
    """How it is computed. "auto" is decided in `system.device` from what the machine has; the run records why."""

    precision: WantedPrecision = Field(
        default="auto", description="of the network's arithmetic; fp64 is there to compare ways of computing"
    )
    channels_last: Switch = Field(default="auto", description="memory layout with a pixel's channels side by side")
    compile: Switch = Field(default="auto", description="torch.compile")
    graphs: Switch = Field(default="auto", description="CUDA graphs around the whole step")
    kernels: Switch = Field(default="auto", description="hemotorch's own Triton kernels")
    keep_memory: Switch = Field(
        default="auto", description="keep the memory of freed tensors for the next ones; on a CPU with glibc"
    )
    threads: int = Field(default=0, ge=0, le=MOST, description="of a CPU, per process; 0: the cores that it may use")
    sync_batch_norm: bool = Field(default=False, description="with several ranks, batch statistics over all of them")
    rank_timeout_s: float = Field(
        default=600.0,
        ge=1,
        le=10**7,
        description="after it a rank that does not answer is given up",
        json_schema_extra=SECONDS,
    )
