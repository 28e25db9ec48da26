"""Training: `fit`, one plain loop for every method, to be read from top to bottom.

lightning-fabric places model and batches on the device and runs them in the wanted precision;
everything random comes from generators that `seed` starts and a checkpoint keeps, so that an
interrupted run continues as if nothing had happened.
"""

import inspect
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from tqdm.auto import tqdm

from vidhash_lab.checkpoints import History, Run, load, save
from vidhash_lab.data.features import FeatureSet, prefetch
from vidhash_lab.models.hasher import VideoHasher
from vidhash_lab.processes import companions, is_launched, mean_of_all, together

# fabric announces the precision at every `fit`; the history and the recipe keep it.
for room in ("rank_zero", "distributed"):
    logging.getLogger(f"lightning_fabric.utilities.{room}").setLevel(logging.WARNING)

SHOW_SECONDS = 0.5  # between two looks at the losses for the progress bar


class NonFiniteLoss(ArithmeticError):
    """A loss became NaN or infinite; a checkpoint still holds the last whole epoch."""


@dataclass(frozen=True)
class StepDecay:
    """The papers' schedule: times `factor` every so many epochs, down to a share of the start.

    ConMH: floor 1e-5 of 1e-4, so 0.1. MCMSH and BTH: floor 1e-4 of 3e-4, so 1/3.

    >>> decay = StepDecay(every=20, factor=0.9, floor=0.1)
    >>> decay(0), decay(20), decay(10_000)
    (1.0, 0.9, 0.1)
    """

    every: int = 20
    factor: float = 0.9
    floor: float = 0.1

    def __call__(self, epoch: int) -> float:
        return max(self.factor ** (epoch // self.every), self.floor)


@dataclass(frozen=True)
class CosineDecay:
    """S5VH's schedule: a half cosine over so many epochs, down to a share of the start.

    `epochs` are 1 or more; after them the learning rate stays at its floor.

    >>> decay = CosineDecay(epochs=100, floor=0.02)
    >>> decay(0), round(decay(50), 2), decay(100)
    (1.0, 0.51, 0.02)
    """

    epochs: int
    floor: float = 0.02

    def __call__(self, epoch: int) -> float:
        angle = math.pi * min(epoch, self.epochs) / self.epochs
        return self.floor + (1 - self.floor) * (1 + math.cos(angle)) / 2


def fit(
    model: VideoHasher,
    train: FeatureSet,
    *,
    epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-4,
    schedule: str | StepDecay | CosineDecay = "step",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    checkpoint: str | Path | None = None,
    resume: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
    processes: int = 1,
) -> History:
    """Train `model` on the videos of `train`: prepare it, then minimise its losses with Adam.

    A method without weights (a baseline) is prepared, and its history has no epochs.

    Args:
        epochs: passes over the training videos; a method with weights needs them.
        batch_size: videos a step, at most all; a last, smaller batch of an epoch is left out.
        learning_rate: at the start; with "one-cycle" the highest.
        schedule: "step", a `StepDecay`, a `CosineDecay`, or "one-cycle" (30% up, then down, by the
            cosine).
        seed: of the order of videos, augmentation and dropout; initial weights have their own.
        device: "auto", "cpu", "cuda", "mps".
        precision: "auto" is bfloat16 autocast where the hardware has it, else "32-true".
        checkpoint: a file written after each epoch, to a temporary name, then renamed.
        resume: go on from `checkpoint`, bit for bit with the same machine and number of threads.
        on_epoch: called with the epoch's row of the history, after its checkpoint is written.
        processes: N that share every batch, on this machine; losses and weights come out as those
            of one (dropout aside: each draws its own). Started by torchrun, `fit` finds its N
            itself. The checkpoint is one file, which any number of processes can go on from.

    The model comes back in evaluation mode, on the device it was on. Raises ValueError for
    arguments that do not fit, and `NonFiniteLoss`: on a CPU before the step that would spoil the
    weights, on a GPU within half a second. The checkpoint of the last whole epoch stays.

    >>> from vidhash_lab import ConMH, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> model = ConMH.for_dataset(data, bits=16, hidden_dim=32, depth=1, heads=2, decoder_dim=32)
    >>> history = fit(model, data.train, epochs=1, learning_rate=3e-3)
    >>> {"contrastive", "reconstruction", "loss", "seconds"} <= set(history[0])
    True
    """
    own = dict(locals(), processes=1)
    model.check_fits(train)
    has_weights = any(True for _ in model.parameters())
    if processes > 1 and has_weights and not is_launched():
        _check_shares(model, min(batch_size, len(train)), processes)
        with companions(partial(fit, **own | {"on_epoch": None}), processes):
            return fit(**own)
    model.warm_up()
    precision, device_before = choose_precision(precision, device), model.device
    with together(device, precision) as fabric, torch.random.fork_rng():
        torch.manual_seed(seed + 1_000_003 * fabric.global_rank)  # of dropout, each its own
        recipe = {"seed": seed, "videos": len(train), "data": train.fingerprint()}
        if has_weights:
            recipe |= _recipe(train, epochs, batch_size, learning_rate, schedule, precision)
        try:
            history = _prepare(fabric, model, train, seed, recipe)
            if has_weights:
                run = _begin(model, schedule, recipe, history)
                _train(fabric, run, train, checkpoint, resume, on_epoch)
            elif checkpoint is not None:
                _write_prepared(model, history, checkpoint, resume)
        finally:
            model.to(device_before).eval()
    return history


def _check_shares(model, batch_size, processes):
    """Raise ValueError where a batch cannot be shared among so many processes."""
    name = type(model).__name__
    if "share" not in inspect.signature(model.sample).parameters:
        raise ValueError(f"{name} trains in one process: its `sample` takes no `share` of a batch.")
    if batch_size % processes:
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of processes={processes}: shares are equal"
        )


def _prepare(fabric, model, train, seed, recipe):
    """Prepare the model, the first process before the others, which find what it kept."""
    started = time.perf_counter()
    with fabric.rank_zero_first():
        model.to(fabric.device).prepare(train, seed)
    return History(
        prepare_seconds=time.perf_counter() - started + model.saved_seconds, recipe=recipe
    )


def _write_prepared(model, history, checkpoint, resume):
    """Write a method without weights, but not in place of a file of another method."""
    if resume and Path(checkpoint).exists():
        load(checkpoint, type(model))
    save(model, checkpoint, history=history)


def _train(fabric, run, train, checkpoint, resume, on_epoch):
    """Train the epochs that are left, and write the checkpoint after each."""
    # Set up before a checkpoint is read, so that the optimiser's state lands on the device.
    module, optimizer = fabric.setup(run.model, run.optimizer)
    losses, share = run.model.losses, {}
    if (processes := fabric.world_size) > 1:
        _check_shares(run.model, run.recipe["batch_size"], processes)
        module.mark_forward_method("losses")  # else gradients would not meet, without a word
        rank, each, losses = (
            fabric.global_rank,
            run.recipe["batch_size"] // processes,
            module.losses,
        )
        share = {"share": slice(rank * each, (rank + 1) * each)}
    if checkpoint is not None and resume and Path(checkpoint).exists():
        run.restore(checkpoint)
    elif checkpoint is not None:
        run.write(checkpoint)  # an interrupt in the first epoch finds something to go on from

    batch_size, epochs, done = run.recipe["batch_size"], run.recipe["epochs"], len(run.history)
    steps = len(train) // batch_size
    with tqdm(total=epochs * steps, initial=done * steps, unit="step", desc="fit") as bar:
        for epoch in range(done, epochs):
            run.model.train().on_epoch(epoch)
            order = torch.randperm(len(train), generator=run.generator)[: steps * batch_size]
            batches = prefetch(
                run.model.sample(train, indices, run.generator, **share)
                for indices in order.split(batch_size)
            )
            row = _train_one_epoch(fabric, run, losses, optimizer, batches, bar)
            run.history.append(row | {"videos_per_second": len(order) / row["seconds"]})
            if checkpoint is not None:
                run.write(checkpoint)
            if on_epoch is not None:
                with torch.random.fork_rng():  # what it draws is not the training's
                    on_epoch(run.history[-1])


def _train_one_epoch(fabric, run, losses, optimizer, batches, bar):
    """Train one epoch -> its number, mean loss terms, their sum `loss`, and what it took."""
    epoch, started, shown = len(run.history) + 1, time.perf_counter(), 0.0
    seen = []  # the terms of every step (terms,)
    for batch in batches:
        with fabric.autocast():
            terms = losses(fabric.to_device(batch))
        loss = sum(terms.values())
        if not torch.is_tensor(loss) or not loss.requires_grad:
            raise ValueError(f"there is nothing to minimise: the loss terms are {terms}.")
        # Of all processes, so that all see, and stop at, the same.
        seen.append(mean_of_all(torch.stack([*terms.values()]).detach()))
        if loss.device.type == "cpu":  # a look at a GPU's loss would make it wait in every step
            _check_finite(seen[-1:], terms, epoch, len(seen))
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        run.scheduler.step()
        bar.update()
        if time.perf_counter() - shown > SHOW_SECONDS:
            shown = time.perf_counter()
            means = _check_finite(seen, terms, epoch, len(seen))
            bar.set_postfix(epoch=epoch, **{name: f"{mean:.3f}" for name, mean in means.items()})
    means = _check_finite(seen, terms, epoch, len(seen))
    means["loss"] = sum(means.values())
    took = {"seconds": time.perf_counter() - started, "threads": torch.get_num_threads()}
    return {"epoch": epoch} | means | took


def _check_finite(seen, names, epoch, step):
    """Average the terms of some steps -> {name: mean}, or raise `NonFiniteLoss`."""
    means = dict(zip(names, torch.stack(seen).cpu().double().mean(0).tolist()))
    if not math.isfinite(sum(means.values())):
        shown = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items())
        raise NonFiniteLoss(
            f"loss is not finite in epoch {epoch}, step {step} ({shown}). A checkpoint holds the "
            "last whole epoch. Try a lower learning_rate, precision='32-true', or "
            "dataset.validate()."
        )
    return means


def _recipe(train, epochs, batch_size, learning_rate, schedule, precision):
    """Check and gather what a resumed run must share with the one that it continues."""
    if epochs is None:
        raise ValueError("epochs is missing: a method with weights needs passes over the videos.")
    for name, value, least in (("epochs", epochs, 0), ("batch_size", batch_size, 1)):
        if value != int(value) or value < least:
            raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more.")
    if schedule not in ("step", "one-cycle") and not isinstance(schedule, (StepDecay, CosineDecay)):
        raise ValueError(
            f'schedule is "step", "one-cycle", a StepDecay or CosineDecay, not {schedule!r}'
        )
    return {
        "epochs": int(epochs),
        "batch_size": min(int(batch_size), len(train)),
        "learning_rate": learning_rate,
        "schedule": str(StepDecay() if schedule == "step" else schedule),
        "precision": precision,
    }


def _begin(model, schedule, recipe, history):
    """Make Adam, the learning rate's schedule, which moves on at every step, and the generator."""
    steps, peak = recipe["videos"] // recipe["batch_size"], recipe["learning_rate"]
    optimizer = torch.optim.Adam(model.parameters(), peak, fused=True)
    if schedule == "one-cycle":
        total = max(1, recipe["epochs"] * steps)
        scheduler = OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)
    else:
        decay = StepDecay() if schedule == "step" else schedule
        scheduler = LambdaLR(optimizer, lambda step: decay(step // steps))
    draws = torch.Generator().manual_seed(recipe["seed"])
    return Run(model, optimizer, scheduler, draws, recipe, history)


def choose_precision(precision: str, device: str) -> str:
    """Choose bfloat16 autocast where the hardware computes in it, else float32, of "auto".

    >>> choose_precision("bf16-mixed", "cpu")
    'bf16-mixed'
    """
    if precision != "auto":
        return precision
    if device in ("auto", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        fast = False
    else:
        features = torch.cpu.get_capabilities()  # avx512_bf16, amx_bf16, …
        fast = any("bf16" in name and has for name, has in features.items())
    return "bf16-mixed" if fast else "32-true"
