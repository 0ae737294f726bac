"""The processes that train together: which one this is, what they add up, and what is said when one of them is lost.

torchrun, SLURM and Ray start one process per GPU, or per share of the cores; each is a rank. Started alone, a process
is rank 0 of one, and everything here does nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hemotorch.errors import HemotorchError, OptionError, RankLost, RunError

if TYPE_CHECKING:  # a process that is alone needs none of it, and may be where torch is not installed
    from torch import Tensor

NOTE_S = 3.0  #: how long a rank waits, after another was lost, for the word of what happened
GO_ON = "go on from the last checkpoint with --resume, with as many ranks as you like"


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    rank: its number among `world` of them. local: its number on its machine, which runs `beside` of them.
    timeout_s: after which a rank that does not answer is given up. store: of notes between them, None if it is alone.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    beside: int = 1
    timeout_s: float = 600.0
    store: Any = field(default=None, compare=False, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def mine(self, items: Sequence[Any]) -> Sequence[Any]:
        """Every `world`-th of the items, this rank's own."""
        return items[self.rank :: self.world]

    def all_sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, on each of them, with its gradient: to each rank that of all ranks' losses."""
        if self.world == 1:
            return values
        from hemotorch.system.rank_sum import RankSum

        total: Tensor = RankSum.apply(values)
        return total

    def average_(self, tensors: list[Tensor]) -> None:
        """Replaces tensors of one type by their mean over ranks, in one message."""
        if self.world == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.world).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def barrier(self) -> None:
        """Waits until every rank is here. A rank that is lost is noticed."""
        self.gather(None)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, on each of them, in the ranks' order."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Leaves a note of this rank's error for the others, and says what happened to the one that was lost.

        gloo notices a lost rank at once; a training on GPUs at its next look at the loss, which asks through gloo.
        """
        if self.world == 1:
            yield
            return
        try:
            yield
        except HemotorchError as error:
            self._tell(f"{error}")
            raise
        except RuntimeError as error:
            if not _is_message_lost(error):
                self._tell(f"{type(error).__name__}: {error}".splitlines()[0])
                raise
            raise self._what_happened(error) from error
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, KeyboardInterrupt):
                text = "was interrupted"
            self._tell(text)
            raise

    def _tell(self, text: str) -> None:
        with suppress(RuntimeError, AttributeError):
            self.store.set("stopped", f"rank {self.rank} stopped: {text}")

    def _what_happened(self, error: RuntimeError) -> RunError:
        """Another rank's own note, or RankLost with the rank that is not there any more."""
        where = f"rank {self.rank}"
        # gloo raises plain RuntimeErrors, of which only the text tells.
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        with suppress(RuntimeError, AttributeError):
            self.store.set(f"waiting/{self.rank}", "yes")
            until = time.monotonic() + NOTE_S
            while time.monotonic() < until:
                if self.store.check(["stopped"]):
                    return RunError(self.store.get("stopped").decode(), where, GO_ON)
                time.sleep(0.1)
            gone = [str(rank) for rank in range(self.world) if not self.store.check([f"waiting/{rank}"])]
            if gone:
                who = f"rank {' and '.join(gone)}"
                what = f"{who} has not answered for {self.timeout_s:g} s" if late else f"{who} was killed"
                return RankLost(what, where, GO_ON)
        what = f"has not answered for {self.timeout_s:g} s" if late else "stopped: see its own message"
        return RankLost(f"another rank {what}", where, GO_ON)


@contextmanager
def process_group(timeout_s: float = 600.0) -> Iterator[Ranks]:
    """Joins the processes that torchrun's environment variables name, or a group that was formed already.

    A group that was formed here is left at the end. It talks through gloo on CPUs and through nccl between GPUs.

    Raises:
        OptionError: if the variables make no sense.
        RunError: if the ranks do not find each other.
    """
    import torch
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        rank, world = dist.get_rank(), dist.get_world_size()
        yield Ranks(rank, world, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", world), timeout_s)
        return
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield Ranks()
        return
    rank = _number("RANK", -1)
    address, port = os.environ.get("MASTER_ADDR"), _number("MASTER_PORT", 0)
    if not 0 <= rank < world or not address or not port:
        todo = "start the ranks with torchrun or `hemotorch cluster`, or unset WORLD_SIZE"
        raise OptionError("WORLD_SIZE is set, but RANK, MASTER_ADDR and MASTER_PORT do not fit", "environment", todo)
    wait = timedelta(seconds=timeout_s)
    try:
        # torchrun holds the store in a process of its own, which outlives a rank that dies.
        owner = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = dist.TCPStore(address, port, world, owner, wait)
        local = _number("LOCAL_RANK", rank)
        if torch.cuda.is_available() and local < torch.cuda.device_count():
            torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        group = dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=world, timeout=wait)
    except RuntimeError as error:
        what = f"the {world} ranks did not find each other within {timeout_s:g} s ({str(error).splitlines()[0]})"
        raise RunError(what, f"rank {rank}", f"are all of them started, and is {address}:{port} reachable?") from error
    ranks = Ranks(rank, world, local, _number("LOCAL_WORLD_SIZE", world), timeout_s, dist.PrefixStore("notes", store))
    try:
        with ranks.explained():
            yield ranks
            dist.barrier()  # all leave together
    finally:
        dist.destroy_process_group()


def exit_rank(status: int) -> int:
    """Ends a process that is one of several ranks, with this exit status; returns it if there is only one."""
    # gloo may abort a process that is torn down while its partners still talk to it.
    if _number("WORLD_SIZE", 1) != 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.lstrip("-").isdigit():
        raise OptionError(f"{name} is set to '{text}', which is no number", "environment", f"unset {name}")
    return int(text)


def _is_message_lost(error: RuntimeError) -> bool:
    import torch.distributed as dist

    kind = getattr(dist, "DistError", ())
    texts = ("gloo", "connection closed", "connection reset", "timed out waiting", "nccl", "broken pipe")
    return isinstance(error, kind) or any(text in str(error).lower() for text in texts)
