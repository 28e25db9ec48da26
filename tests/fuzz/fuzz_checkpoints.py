"""Read thousands of damaged checkpoints: each loads or is refused with a clear error.

    python tests/fuzz/fuzz_checkpoints.py 3000 --seed 0

Every case starts from a good checkpoint, one of the kit's own, of a training run or in the form of
a released one, and changes keys, shapes, types, nesting or single bytes. What is left goes through
`load`, `load_released` and a resumed `fit`. Outcomes: loaded; refused (`DataError`); failed (any
other exception, or code that ran), with the seed of the case: `--seed SEED 1` repeats it.
"""

import argparse
import os
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch

from vidhash_lab import (
    BTH,
    MCMSH,
    S5VH,
    AutoSSVH,
    ConMH,
    DataError,
    FeatureSet,
    fit,
    load,
    load_released,
    save,
)
from vidhash_lab.models.autossvh import RELEASED_NAMES

SHAPE = {"num_frames": 6, "feature_dim": 8, "hidden_dim": 16, "bits": 8}
TARGET = Path(tempfile.gettempdir()) / f"vidhash-fuzz-{os.getpid()}"  # what evil code would make


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {TARGET}",)


@cache
def good(folder):
    """Write good files of every kind -> {kind: state dict}, and the training set."""
    rng = np.random.default_rng(0)
    with h5py.File(folder / "train.h5", "w") as file:
        file["feats"] = rng.standard_normal((16, 6, 8)).astype(np.float32)
    train = FeatureSet(folder / "train.h5")
    conmh = ConMH(ConMH.Config(**SHAPE, depth=1, heads=2, decoder_dim=192))
    save(conmh, folder / "own.pt")
    run = run_model()
    fit(run, train, epochs=1, checkpoint=folder / "run.pt")
    own, run = (torch.load(folder / name, weights_only=True) for name in ("own.pt", "run.pt"))
    weights = conmh.state_dict()
    autossvh = {"encoder.sample_net.temperature": torch.ones(1)}
    for key, value in AutoSSVH(AutoSSVH.Config(**SHAPE, depth=1, heads=1)).state_dict().items():
        names = [t + key.removeprefix(h) for t, h in RELEASED_NAMES.items() if key.startswith(h)]
        autossvh[names[0] if names else key] = value[None] if key == "positions" else value
    mcmsh = MCMSH(MCMSH.Config(**SHAPE)).state_dict()
    mcmsh.pop("alpha")
    states = {
        "own": own,
        "run": run,
        "conmh": {"model_state_dict": weights, "epoch": 3},
        "autossvh": {"model_state_dict": autossvh},
        "mcmsh": mcmsh,
        "bth": BTH(BTH.Config(**SHAPE)).state_dict(),
        "s5vh": S5VH(S5VH.Config(**SHAPE, depth=1, num_clusters=5)).state_dict(),
    }
    return states, train


def run_model():
    """A model to be resumed."""
    return ConMH(ConMH.Config(**SHAPE, depth=1, heads=2, decoder_dim=192))


def damage(draw, state):
    """Change one thing in a (nested) dict of tensors."""
    state = dict(state)
    if not state:
        return state
    key = list(state)[draw.integers(len(state))]
    value = state[key]
    if isinstance(value, dict) and draw.random() < 0.8:
        return state | {key: damage(draw, value)}
    tensor = value if isinstance(value, torch.Tensor) else torch.ones(2, 3)
    changes = [
        lambda: state.pop(key),
        lambda: state.update({f"{key}.more": value}),
        lambda: state.update({f"module.{key}": state.pop(key)}),
        lambda: state.update({key: tensor.flatten()}),
        lambda: state.update({key: tensor[None]}),
        lambda: state.update({key: torch.zeros(0)}),
        lambda: state.update({key: torch.ones(tensor.ndim * [2])}),
        lambda: state.update({key: tensor.to(torch.complex64)}),
        lambda: state.update({key: tensor.to(torch.int8)}),
        lambda: state.update({key: tensor * float("nan")}),
        lambda: state.update({key: "text"}),
        lambda: state.update({key: None}),
        lambda: state.update({key: [tensor, {"a": tensor}]}),
        lambda: state.update({key: Evil()}),
        lambda: state.update({7: tensor}),
        state.clear,
    ]
    changes[draw.integers(len(changes))]()
    return state


def write(draw, state, path):
    """Write a state, damaged once or twice, then perhaps its bytes too."""
    for _ in range(draw.integers(3)):
        state = damage(draw, state)
    if draw.random() < 0.1:
        state = [state, list(state.values()), torch.ones(3), "text"][draw.integers(4)]
    torch.save(state, path, _use_new_zipfile_serialization=bool(draw.random() < 0.7))
    data = bytearray(path.read_bytes())
    if draw.random() < 0.3:
        data = data[: draw.integers(len(data))]
    elif draw.random() < 0.3 and data:
        for place in draw.integers(0, len(data), draw.integers(1, 20)):
            data[place] = draw.integers(256)
    path.write_bytes(data)


def one_case(seed, folder):
    """Damage one file and read it -> "loaded" or "refused"; other exceptions are failures."""
    draw = np.random.default_rng(seed)
    states, train = good(folder)
    kind = list(states)[draw.integers(len(states))]
    path = folder / "case.pt"
    write(draw, states[kind], path)
    readers = {
        "own": lambda: load(path),
        "run": lambda: fit(run_model(), train, epochs=1, checkpoint=path),
    }
    try:
        readers.get(kind, lambda: load_released(kind, path))()
        outcome = "loaded"
    except DataError:
        outcome = "refused"
    if TARGET.exists():
        TARGET.unlink()
        raise AssertionError("code of the file was run")
    return outcome


def main(arguments=None):
    """Run the cases, print the outcomes -> how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    outcomes = Counter()
    warnings.simplefilter("ignore")  # released MCMSH and torch's own tell what they assume
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seed, options.seed + options.cases):
            try:
                outcomes[one_case(seed, Path(folder))] += 1
            except Exception:
                outcomes["failed"] += 1
                print(f"seed {seed}: {traceback.format_exc(limit=-3)}", flush=True)
    print(dict(outcomes))
    return outcomes["failed"]


if __name__ == "__main__":
    sys.exit(min(1, main()))
