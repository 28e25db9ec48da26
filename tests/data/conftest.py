"""Small editions of the five published data sets, in the files that their authors hand out."""

import h5py
import numpy as np
import pytest
import scipy.io

from vidhash_lab.data.released.sets import PUBLISHED_SETS


@pytest.fixture
def write_published(tmp_path):
    """Return a function that writes a published layout of random videos and returns its folder."""

    def write(name, videos=6, shape=(3, 8), categories=4):
        published, generator = PUBLISHED_SETS[name], np.random.default_rng(0)
        folder = tmp_path / name
        folder.mkdir()
        for part in published.parts:
            for file in part.feats:
                with h5py.File(folder / file, "w") as opened:
                    opened["feats"] = generator.standard_normal((videos, *shape)).astype("f4")
            for file in part.labels:
                own = generator.integers(0, categories, videos)
                labels = np.eye(categories, dtype="u1")[own]
                scipy.io.savemat(folder / file, {part.key: labels})
        return folder

    return write
