"""Several processes that train one model, each on its share of every batch.

Every process draws the whole batch's order, masks and partners from the same generator and reads
its own share. Means over videos are means of shares, since shares are equal; where videos meet (a
contrastive loss, a batch norm) the rows of all are gathered *with gradient*, and each process
computes the same whole loss of them. Gradients are averaged, and come out as those of one process.
`torchrun` and SLURM start the processes themselves; `companions` starts them on this machine.

N processes, B videos of a batch, b = B / N of a share.
"""

import contextlib
import gc
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ENVIRONMENT = threading.RLock()


def number_of() -> int:
    """How many processes train together: 1 but within `fit`.

    >>> number_of()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among those that train together, 0 for the first.

    >>> rank()
    0
    """
    return dist.get_rank() if number_of() > 1 else 0


def gathered(state: Tensor) -> Tensor:
    """Stack a tensor of every process (N, …), without gradient.

    >>> gathered(torch.zeros(3)).shape
    torch.Size([1, 3])
    """
    if number_of() == 1:
        return state[None]
    states: list = [None] * number_of()
    dist.all_gather_object(states, state.cpu())
    return torch.stack(states)


def everyones(rows: Tensor) -> Tensor:
    """Gather the rows (b, …) of all processes -> (B, …), with gradient; alone, the rows themselves.

    A gather without gradient would halve the weight of a contrastive loss without a word.

    >>> everyones(torch.zeros(4, 2)).shape
    torch.Size([4, 2])
    """
    return rows if number_of() == 1 else _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    """Rows (b, …) -> (B, …); each process's rows get the gradients that all have of them."""

    @staticmethod
    def forward(ctx, rows):
        parts = [torch.empty_like(rows) for _ in range(number_of())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(number_of())[rank()]


def mean_of_all(value: Tensor) -> Tensor:
    """Average a tensor over all processes, with gradient; alone, the tensor itself.

    >>> mean_of_all(torch.tensor(2.0)).item()
    2.0
    """
    return value if number_of() == 1 else everyones(value[None]).mean(0)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of (b, c) with the statistics of all processes' rows; alone, torch's own.

    torch's `SyncBatchNorm` computes on a GPU only.

    >>> BatchNorm(3)(torch.randn(4, 3)).shape
    torch.Size([4, 3])
    """

    def forward(self, x):
        if not self.training or number_of() == 1:
            return super().forward(x)
        mean = mean_of_all(x.float().mean(0))
        variance = mean_of_all((x.float() - mean).square().mean(0))
        rows = len(x) * number_of()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)
        normal = (x - mean) * (variance + self.eps).rsqrt()
        return (normal * self.weight + self.bias).to(x.dtype)


def is_launched() -> bool:
    """Whether torchrun (or `companions`, in its way) started this process as one of several.

    >>> is_launched()
    False
    """
    return dist.is_available() and dist.is_torchelastic_launched() and _told("WORLD_SIZE") > 1


def _told(name):
    return int(os.environ.get(name, "1"))


@contextlib.contextmanager
def together(device: str, precision: str) -> Iterator["Fabric"]:
    """Meet the other processes that were launched, if any, and give the fabric of all.

    >>> with together("cpu", "32-true") as fabric:
    ...     fabric.world_size
    1
    """
    from lightning_fabric import Fabric  # takes half a second to import
    from lightning_fabric.strategies import DDPStrategy

    if not is_launched():
        yield Fabric(accelerator=device, devices=1, precision=precision)
        return

    class Launched(DDPStrategy):
        def _configure_launcher(self):
            """Make no launcher: all processes run, and fabric has none for a notebook."""

    here, nodes = _told("LOCAL_WORLD_SIZE"), _told("WORLD_SIZE") // _told("LOCAL_WORLD_SIZE")
    # A task of weight 0 leaves parts unused; gradients that lie in DDP's buckets need no copies.
    strategy = Launched(find_unused_parameters=True, gradient_as_bucket_view=True)
    fabric = Fabric(
        accelerator=device, devices=here, num_nodes=nodes, precision=precision, strategy=strategy
    )
    fabric.launch()
    try:
        yield fabric
        gc.collect()  # what still refers to the group makes it abort at exit (torch 2.13, gloo)
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def companions(call: Callable[[], object], count: int) -> Iterator[None]:
    """Let `count` - 1 more processes of this machine make `call` beside what is done in the block.

    This process is the first, rank 0, and each is told its rank as torchrun would tell it. What
    `call` refers to travels by cloudpickle, so that classes of a notebook do, too. A process that
    ends with an error, or is killed, ends the others: RuntimeError names it.

    >>> with companions(print, count=1):  # of one process: nobody else is needed
    ...     number_of()
    ...
    1
    """
    import cloudpickle

    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        told |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        told["TORCHELASTIC_RUN_ID"] = "vidhash_lab"
        told["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // count))
        path = Path(folder) / "call"
        path.write_bytes(cloudpickle.dumps(call))
        free.close()
        others = [_start(path, told, rank) for rank in range(1, count)]
        try:
            _wait_until_ready(others, Path(folder))
            with environment(told | {"RANK": "0", "LOCAL_RANK": "0"}), _threads(told):
                yield
            for process in others:
                process.wait(60)
        except Exception as error:
            ended = _who_ended(others, Path(folder))
            if ended:
                raise RuntimeError(
                    f"{ended} The checkpoint of the last whole epoch stands."
                ) from error
            raise
        finally:
            for process in others:
                process.kill()
                process.wait()


def _start(path, told, rank):
    told = told | {"RANK": str(rank), "LOCAL_RANK": str(rank), "TQDM_DISABLE": "1"}
    told["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [
        sys.executable,
        "-c",
        "from vidhash_lab.processes import follow; follow()",
        str(path),
    ]
    with open(path.with_name(f"errors-{rank}"), "wb") as errors:
        return subprocess.Popen(command, env=os.environ | told, stderr=errors)


def _wait_until_ready(others, folder):
    """Wait until all have read what to do; who cannot would leave the others waiting for it."""
    while not all((folder / f"ready-{rank}").exists() for rank in range(1, len(others) + 1)):
        if any(process.poll() is not None for process in others):
            raise RuntimeError("a process could not begin.")
        time.sleep(0.05)


def follow() -> None:
    """Make the call whose pickle's path stands on the command line: what a companion does."""
    path = Path(sys.argv[1])
    call = pickle.loads(path.read_bytes())
    (path.parent / f"ready-{os.environ['RANK']}").touch()
    call()


def _who_ended(others, folder):
    """Name the processes that ended with an error or by a signal, and the last they said."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        for process in others:  # those that another's end ends say so within moments
            process.wait(5)
    said = []
    for rank, process in enumerate(others, 1):
        if code := process.poll():
            how = f"was killed by signal {-code}" if code < 0 else "failed"
            last = (folder / f"errors-{rank}").read_text("utf-8", "replace").strip().split("\n")[-1]
            said.append((code > 0, f"process {rank} of 0 to {len(others)} {how}: {last or '-'}."))
    return min(said)[1] if said else ""  # one that was killed is why others failed


@contextlib.contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Set environment variables for what starts meanwhile, then put all back as it was.

    A process has one environment: a second thread waits for the first.

    >>> with environment({"VIDHASH_LAB_EXAMPLE": "here"}):
    ...     os.environ["VIDHASH_LAB_EXAMPLE"]
    'here'
    >>> "VIDHASH_LAB_EXAMPLE" in os.environ
    False
    """
    with ENVIRONMENT:
        before = dict(os.environ)
        os.environ.update(changes)
        try:
            yield
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


@contextlib.contextmanager
def _threads(told):
    before = torch.get_num_threads()
    torch.set_num_threads(int(told["OMP_NUM_THREADS"]))
    try:
        yield
    finally:
        torch.set_num_threads(before)
