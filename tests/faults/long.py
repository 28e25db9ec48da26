"""All attacks, in their hundreds: what came of them, counted. Any other word than these is a fault:

same      the result is that of an undisturbed run, to the last bit
refused   a `DataError` said what is wrong

    python tests/faults/long.py --kills 300 --flips 1000
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import attacks
import numpy as np


def main():
    """Run the attacks and count what came of them -> exit code 1 for any fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, faults = np.random.default_rng(options.seed), 0

    def count(what, outcomes):
        nonlocal faults
        started, found = time.perf_counter(), Counter(outcomes)
        faults += sum(n for word, n in found.items() if word not in ("same", "refused"))
        print(f"{what}: {dict(found)}, {time.perf_counter() - started:.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data, checkpoint = attacks.training_set(folder), folder / "run.pt"
        seconds = attacks.took(attacks.train, data, checkpoint)
        expected, whole = attacks.weights_of(checkpoint), checkpoint.stat().st_size
        count(
            "trainings, killed twice each",
            (
                attacks.killed_training(data, checkpoint, expected, seconds, rng)
                for _ in range(options.kills // 2)
            ),
        )
        count(
            "trainings, the disk full at every twentieth of a checkpoint",
            (
                attacks.full_disk_in_training(data, checkpoint, int(size), expected)
                for size in np.linspace(0, whole - 1, 20)
            ),
        )
        films, out = attacks.films(folder), folder / "out.h5"
        seconds, expected = attacks.took(attacks.extract, films, out), attacks.rows_of(out)
        count(
            "extractions, killed twice each",
            (
                attacks.killed_extraction(films, out, expected, seconds, rng)
                for _ in range(options.kills // 2)
            ),
        )
        for name, attack in attacks.FLIPS.items():
            count(f"flipped bits of a {name}", (attack(folder, rng) for _ in range(options.flips)))
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
