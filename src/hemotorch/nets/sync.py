"""Batch norm over the batch of all ranks together, on CPUs and GPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hemotorch.system.ranks import Ranks


class SyncBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose mean and variance in training are those of all ranks' samples, gradient included.

    The deviations from the common mean are squared, not the values: a variance that is a difference of two large
    numbers loses its digits. torch's own SyncBatchNorm does this for GPUs only.
    """

    ranks: Ranks = Ranks()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.ranks.world == 1:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.new_full((1,), wide.numel() // wide.shape[1])
        sums = torch.cat([wide.sum((0, 2, 3)), count])
        sums = self.ranks.all_sum(sums)
        count = sums[-1].detach()
        mean = sums[:-1] / sums[-1]
        centred = wide - mean[:, None, None]
        squares = self.ranks.all_sum(centred.square().sum((0, 2, 3)))
        variance = squares / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight.to(wide.dtype) / (variance + self.eps).sqrt()
        shift = self.bias.to(wide.dtype)
        normed = centred * scale[:, None, None] + shift[:, None, None]
        return normed.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def synchronise(net: nn.Module, ranks: Ranks) -> None:
    """Makes every batch norm of the network count all ranks' samples. Weights, names and everything else stay."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm
            module.ranks = ranks  # type: ignore[assignment]
