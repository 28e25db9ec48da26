"""Time and weigh the building of the whole built-in data set, into a folder that is then removed.

    python benchmarks/digit_stories.py

Peak memory is that of the whole process (torch, h5py and scikit-learn included).
"""

import os
import resource
import tempfile
import time
from pathlib import Path

from vidhash_lab.data.stories.digit_stories import DigitStoriesConfig, is_complete, open_or_build


def main():
    config = DigitStoriesConfig()
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        folder = open_or_build(config, Path(cache))
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        assert is_complete(folder)
        reopening = time.perf_counter() - start
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    videos = config.train + config.database + config.query
    print(f"{videos} videos of {config.num_frames} frames, {os.cpu_count()} cores, in one thread")
    print(
        f"build {seconds:.1f} s ({videos / seconds:.0f} videos/s), check {1000 * reopening:.0f} ms"
    )
    print(f"peak memory {peak:.0f} MB (imports alone {imports:.0f} MB), files {size:.0f} MB")


if __name__ == "__main__":
    main()
