"""The processes of a run: one, or several that torchrun started."""

import contextlib
import dataclasses
import functools
import itertools
import os

import torch
from torch import distributed

from mixer_utils.devices import DeviceError


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of one run, numbered from 0: all of them train, the first one also writes and prints."""

    rank: int = 0
    size: int = 1

    @property
    def first(self):
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def device(self, device):
        """This process's own GPU, where there are several processes and GPUs."""
        if self.size > 1 and device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        return device

    def share(self, batch):
        """This process's equal part of a batch. Raises ValueError where equal parts cannot be made."""
        if len(batch) % self.size:
            raise ValueError(
                f"A batch of {len(batch)} cannot be shared equally by {self.size} processes: choose a batch_size that "
                f"is a multiple of {self.size}."
            )
        return batch[self.rank :: self.size]

    def parallel(self, model):
        """``model``, with gradients averaged over the processes after every backward pass."""
        return torch.nn.parallel.DistributedDataParallel(model) if self.size > 1 else model

    def mean(self, values):
        """The mean over the processes of a 1-D tensor, as a list of numbers."""
        if self.size > 1:
            values = values.detach().clone()
            distributed.all_reduce(values)
            values /= self.size
        return values.tolist()


ALONE = Processes()
RUNS = itertools.count()


@functools.cache
def meeting_point():
    """Where the processes tell each other their addresses, this one's number, and how many they are."""
    return next(distributed.rendezvous("env://"))


@contextlib.contextmanager
def joined_processes():
    """The Processes that torchrun started, connected; one alone where it did not.

    Raises DeviceError, inside, as soon as another process is lost: none waits for one that will not come.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Processes()
        return
    ours = not distributed.is_initialized()
    if ours:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, size = meeting_point()
        # A prefix for every run: a second one would find the addresses of the first, and wait for those for ever.
        store = distributed.PrefixStore(f"run {next(RUNS)}", store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    processes = Processes(distributed.get_rank(), distributed.get_world_size())
    try:
        yield processes
        distributed.barrier()  # none takes its end of the connections away while another still waits for an answer
    except distributed.DistBackendError as error:
        raise lost(processes, error) from error
    except RuntimeError as error:
        if "gloo" not in str(error) and "Connection" not in str(error):
            raise
        raise lost(processes, error) from error
    finally:
        if ours:
            distributed.destroy_process_group()


def lost(processes, error):
    """What a process says when it waits in vain for another."""
    reason = " ".join(str(error).split())[:160]
    return DeviceError(
        f"Process {processes.rank} of {processes.size} lost the others ({reason}): one of them has ended, see its "
        f"message above; start all again with --resume to go on from the last state that was kept."
    )
