"""Training: `fit`, one plain loop for every method.

lightning-fabric places model and batches on the device and runs them in the wanted precision;
everything random comes from two generators that `seed` starts and a checkpoint keeps, so that an
interrupted run continues as if nothing had happened.
"""

import ctypes
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from tqdm.auto import tqdm

from vidhash_lab.checkpoints import Run
from vidhash_lab.data.features import prefetch
from vidhash_lab.models import METHODS
from vidhash_lab.models.baselines import LSH

# fabric announces the precision at every `fit`; the history and the recipe keep it.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)


class NonFiniteLoss(ArithmeticError):
    """A loss became NaN or infinite; the weights are those before that step."""


@dataclass(frozen=True)
class StepDecay:
    """The papers' schedule: times `factor` every so many epochs, down to a share of the start.

    ConMH: floor 1e-5 of 1e-4, so 0.1. MCMSH and BTH: floor 1e-4 of 3e-4, so 1/3.
    """

    every: int = 20
    factor: float = 0.9
    floor: float = 0.1

    def __call__(self, epoch):
        return max(self.factor ** (epoch // self.every), self.floor)


def fit(
    model,
    train,
    *,
    epochs,
    batch_size=128,
    learning_rate=1e-4,
    schedule="step",
    seed=0,
    device="auto",
    precision="auto",
    checkpoint=None,
    resume=True,
    on_epoch=None,
):
    """Train `model` on the feature set `train` with Adam -> History.

    Args:
        batch_size: videos a step; a last, smaller batch of an epoch is left out.
        schedule: "step", a `StepDecay`, or "one-cycle" (30% up, then down, by the cosine).
        device: "auto", "cpu", "cuda", "mps".
        precision: "auto" is bfloat16 autocast where the hardware has it, else "32-true".
        checkpoint: a file written after each epoch, to a temporary name, then renamed.
        resume: go on from `checkpoint` where it exists, on one CPU bit for bit.
        on_epoch: called with the epoch's row of the history, after its checkpoint is written.

    The model comes back on the device it was on. Raises `NonFiniteLoss`; it and an interrupt leave
    the checkpoint of the last whole epoch.
    """
    model.check_fits(train)
    precision = _precision(precision, device)
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    recipe = {"epochs": epochs, "batch_size": min(batch_size, len(train))}
    recipe |= {"learning_rate": learning_rate, "schedule": str(schedule), "seed": seed}
    recipe |= {"precision": precision, "videos": len(train)}
    home = model.device
    _keep_freed_memory()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            # A model whose `prepare` trains something does it on the device.
            run = _begin(model.to(fabric.device).prepare(train, seed), schedule, recipe)
            _train(fabric, run, train, checkpoint, resume, on_epoch)
        finally:
            model.to(home)
    return run.history


def learn(method, dataset, *, bits=64, seed=0, sizes=None, recipe=None):
    """Build a method by its name in `METHODS` and train it on a data set -> the model.

    Args:
        sizes: fields of the method's config besides bits, T and D.
        recipe: arguments of `fit`; a baseline, which `prepare` trains, has none.
    """
    if method not in METHODS:
        raise ValueError(f"no method {method!r}, only {', '.join(METHODS)}")
    model = METHODS[method].for_dataset(dataset, bits=bits, seed=seed, **(sizes or {}))
    if issubclass(METHODS[method], LSH):
        return model.prepare(dataset.train, seed)
    fit(model, dataset.train, seed=seed, **(recipe or {}))
    return model


def _begin(model, schedule, recipe):
    if not any(True for _ in model.parameters()):
        raise TypeError(
            f"{type(model).__name__} has no weights to train: prepare(train, seed) is all it needs."
        )
    optimizer = torch.optim.Adam(model.parameters(), recipe["learning_rate"], fused=True)
    steps = recipe["videos"] // recipe["batch_size"]
    if schedule == "one-cycle":
        total, peak = max(1, recipe["epochs"] * steps), recipe["learning_rate"]
        scheduler = OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)
    else:
        decay = StepDecay() if schedule == "step" else schedule
        if not isinstance(decay, StepDecay):
            raise ValueError(f'schedule is "step", "one-cycle" or a StepDecay, not {schedule!r}')
        scheduler = LambdaLR(optimizer, lambda step: decay(step // steps))
    draws = torch.Generator().manual_seed(recipe["seed"])
    return Run(model, optimizer, scheduler, draws, recipe)


def _train(fabric, run, train, checkpoint, resume, on_epoch):
    # Set up before a checkpoint is read, so that the optimiser's state lands on the device.
    _, optimizer = fabric.setup(run.model, run.optimizer)
    if checkpoint is not None and resume and Path(checkpoint).exists():
        run.restore(checkpoint)
    elif checkpoint is not None:
        run.write(checkpoint)  # an interrupt in the first epoch finds something to go on from
    for row in _epochs(fabric, optimizer, run, train):
        run.history.append(row)
        if checkpoint is not None:
            run.write(checkpoint)
        if on_epoch is not None:
            on_epoch(row)


def _epochs(fabric, optimizer, run, train):
    """Train the epochs that are left, one at a time -> a row of the history each."""
    batch_size, epochs, done = run.recipe["batch_size"], run.recipe["epochs"], len(run.history)
    steps = len(train) // batch_size
    with tqdm(total=epochs * steps, initial=done * steps, unit="step", desc="fit") as bar:
        for epoch in range(done, epochs):
            run.model.train().on_epoch(epoch)
            order = torch.randperm(len(train), generator=run.generator)[: steps * batch_size]
            batches = prefetch(
                run.model.sample(train, indices, run.generator)
                for indices in order.split(batch_size)
            )
            row = _run_epoch(fabric, optimizer, run, batches, bar, epoch)
            yield row | {"videos_per_second": len(order) / row["seconds"]}


def _run_epoch(fabric, optimizer, run, batches, bar, epoch):
    """Train one epoch -> mean of every loss term, their sum `loss`, and seconds."""
    started, shown, sums, steps = time.perf_counter(), 0.0, {}, 0
    for batch in batches:
        with fabric.autocast():
            terms = run.model.losses(fabric.to_device(batch))
        loss = sum(terms.values())
        values = {name: term.item() for name, term in terms.items()}
        if not torch.isfinite(loss):
            raise NonFiniteLoss(
                f"loss is not finite in epoch {epoch + 1}, step {steps + 1} ({values}). The "
                "weights are those before this step; a checkpoint holds the last whole epoch. "
                "Try a lower learning_rate, precision='32-true', or dataset.validate()."
            )
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        run.scheduler.step()
        steps += 1
        sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
        bar.update()
        if time.perf_counter() - shown > 0.5:
            shown = time.perf_counter()
            bar.set_postfix(epoch=epoch + 1, **{n: f"{v / steps:.3f}" for n, v in sums.items()})
    means = {name: value / steps for name, value in sums.items()}
    means["loss"] = sum(means.values())
    return {"epoch": epoch + 1} | means | {"seconds": time.perf_counter() - started}


def _keep_freed_memory():
    """Ask the C library not to give freed memory back to the system, where it is glibc.

    It would after every step, for each tensor of some megabytes, and the pages that come anew in
    the next must be cleared: a tenth of a step of a small ConMH.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 2**31 - 1)


def _precision(precision, device):
    if precision != "auto":
        return precision
    if device in ("auto", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()  # avx512_bf16, amx_bf16, …
        fast = device != "mps" and any("bf16" in name and has for name, has in features.items())
    return "bf16-mixed" if fast else "32-true"
