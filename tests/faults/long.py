"""All attacks, in their hundreds: what came of them, counted. Any other word than these is a fault:

same      the result is that of an undisturbed run, to the last bit; it may have been made anew
refused   a `DataError` said what is wrong

    python tests/faults/long.py --kills 300 --flips 1000
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
import attacks
import numpy as np

ATTACKS = "trainings", "extractions", "damage", "disks", "builders", "vanishing"


def main():
    """Run the attacks and count what came of them -> exit code 1 for any fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--builders", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=ATTACKS)
    options = parser.parse_args()
    rng, found = np.random.default_rng(options.seed), Counter()

    def count(what, outcomes):
        started, here = time.perf_counter(), Counter()
        try:
            for word in outcomes:
                here[word] += 1
        finally:  # also of what is interrupted
            found.update(here)
            print(f"{what}: {dict(here)}, {time.perf_counter() - started:.0f} s", flush=True)

    with attacks.one_thread(), tempfile.TemporaryDirectory() as folder:
        if "trainings" in options.only:
            kill_trainings(Path(folder), options.kills // 2, rng, count)
        if "extractions" in options.only:
            kill_extractions(Path(folder), options.kills // 2, rng, count)
        if "damage" in options.only:
            for name, piece in attacks.PIECES.items():
                for how, damage in attacks.DAMAGES.items():
                    times = options.flips if how == "flipped bits" else options.flips // 10
                    count(f"{how} in {name}", attacks.damaged(piece, damage, times, rng))
        if "disks" in options.only:
            for name, piece in attacks.WRITERS.items():
                count(f"the disk full, {name}", attacks.full_disk(piece, 40))
        if "builders" in options.only:
            for name, piece in attacks.CACHES.items():
                outcomes = attacks.two_builders(piece, options.builders, rng)
                count(f"two processes, one killed, {name}", outcomes)
        if "vanishing" in options.only:
            vanishing(Path(folder), rng, count)
    return int(bool(found.keys() - {"same", "refused"}))


def kill_trainings(folder, times, rng, count):
    """Kill trainings, each twice; fill their disk."""
    data, checkpoint = attacks.training_set(folder), folder / "run.pt"
    seconds = attacks.took(attacks.train, data, checkpoint)
    run = data, checkpoint, attacks.weights_of(checkpoint)
    sizes = np.linspace(0, checkpoint.stat().st_size - 1, 40)
    killed = (attacks.killed_training(*run, seconds, rng) for _ in range(times))
    count("trainings, killed twice each", killed)
    full = (attacks.full_disk_in_training(*run, int(size)) for size in sizes)
    count("the disk full, trainings", full)


def kill_extractions(folder, times, rng, count):
    """Kill extractions into one file and in shards, each twice."""
    for shards in (1, 3):
        run = attacks.films(folder), [folder / f"out-{i}-of-{shards}.h5" for i in range(shards)]
        seconds = attacks.took(attacks.extract_shards, *run)
        expected = attacks.rows_of(*run[1])
        killed = (attacks.killed_extraction(*run, expected, seconds, rng) for _ in range(times))
        count(f"extractions in {shards} files, killed twice each", killed)


def vanishing(folder, rng, count):
    """Take away the output of extractions, and the permission to read a film."""
    films, out = attacks.films(folder), folder / "out" / "out.h5"
    attacks.extract(films, out)
    expected = attacks.rows_of(out)
    gone = (attacks.vanished_output(films, out, expected, rng) for _ in range(30))
    count("extractions whose output is removed", gone)
    denied = (attacks.unreadable_film(films, expected, rng) for _ in range(20))
    count("extractions, a film without permission, then with", denied)


if __name__ == "__main__":
    raise SystemExit(main())
