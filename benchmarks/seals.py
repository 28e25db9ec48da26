"""Time what a checksum costs when a file is opened: MB a second, by the clock and by the processor.

    python benchmarks/seals.py --megabytes 512

On a machine that others use too, the processor's seconds are those that count.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from vidhash_lab.data.files import check_seal, seal


def main():
    """Seal a file of random bytes, then check it three times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=512)
    size = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "file", np.random.default_rng(0)
        with open(path, "wb") as file:
            for _ in range(size):
                file.write(rng.bytes(10**6))
        seal(path)
        for _ in range(3):
            clock, processor = time.perf_counter(), time.process_time()
            check_seal(path)
            clock, processor = time.perf_counter() - clock, time.process_time() - processor
            print(f"{size / clock:.0f} MB/s by the clock, {size / processor:.0f} by the processor")


if __name__ == "__main__":
    main()
