"""Peak resident memory of training from a 2.4 GB float32 file of FCVID's shape.

The file is written in blocks first. Memory is `VmHWM` of a fresh process that trains ConMH `mini`
for one epoch: every row of the file is read once, in random order.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

VIDEOS, T, D = 6000, 25, 4096

TRAIN = """
import sys
from vidhash_lab import ConMH, ConMHConfig, FeatureSet, fit
train = FeatureSet(sys.argv[1])
fit(ConMH(ConMHConfig.sized("mini")), train, epochs=1, batch_size=128, precision="32-true")
lines = open("/proc/self/status").read().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")))
"""


def main():
    """Print the size of the file and the peak of the training process."""
    with tempfile.TemporaryDirectory() as folder:
        path, generator = Path(folder) / "features.h5", np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            feats = file.create_dataset("feats", (VIDEOS, T, D), "f4")
            for start in range(0, VIDEOS, 500):
                feats[start : start + 500] = generator.random((500, T, D), np.float32)
        print(f"file: {path.stat().st_size / 1e9:.2f} GB")
        subprocess.run([sys.executable, "-c", TRAIN, str(path)], check=True)


if __name__ == "__main__":
    main()
