"""Shared fixtures: golden vectors of the released implementations and small data sets."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import settings

from vidhash_lab.data.released.sets import PUBLISHED_SETS

settings.register_profile("no deadline", deadline=None)  # tests never assert on time
settings.load_profile("no deadline")

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"


@pytest.fixture
def golden():
    """Return a function name -> path of a golden file; skips loudly where it is absent."""

    def path(name):
        if not (GOLDEN / name).is_file():
            pytest.skip(f"golden vectors are not on this machine: {GOLDEN / name}")
        return GOLDEN / name

    return path


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Keep data sets that tests build out of the user's cache, unless one is named."""
    os.environ.setdefault("VIDHASH_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    return Path(os.environ["VIDHASH_LAB_CACHE"])


@pytest.fixture
def random_features(tmp_path):
    """Return a function that writes one HDF5 file of random features and returns its path."""

    def write(name="features.h5", shape=(64, 10, 12), dtype="float32", seed=0, labels=5, **options):
        generator = np.random.default_rng(seed)
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            feats = generator.standard_normal(shape).astype(dtype)
            file.create_dataset("feats", data=feats, **options)
            if labels:
                file["labels"] = np.eye(labels, dtype=bool)[generator.integers(0, labels, shape[0])]
        return path

    return write


@pytest.fixture
def generator():
    """Return a seeded torch generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def write_published(tmp_path):
    """Return a function that writes a published layout of random videos -> its folder."""

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
