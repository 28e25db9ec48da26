"""Baselines: what PCA and ITQ promise, checked against their definitions."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from vidhash_lab.checkpoints import load, save
from vidhash_lab.data import FeatureSet
from vidhash_lab.models.baselines import ITQ, LSH, PCAH
from vidhash_lab.retrieval.codes import encode


@pytest.fixture
def features(random_features):
    return FeatureSet(random_features(shape=(200, 4, 20), labels=5))


def pooled(features, pooling):
    frames = features.rows(range(len(features)))
    return (frames.mean(1) if pooling == "mean" else frames.flatten(1)).numpy()


@pytest.mark.parametrize("method", [LSH, PCAH, ITQ])
@pytest.mark.parametrize("pooling, width", [("mean", 20), ("time", 80)])
def test_bits_are_signs_of_a_projection_of_centred_videos(features, method, pooling, width):
    model = method.for_dataset(features, 16, pooling=pooling).prepare(features)
    assert model.projection.shape == (width, 16)
    videos = pooled(features, pooling)
    np.testing.assert_allclose(model.mean, videos.mean(0), atol=1e-5)
    expected = np.packbits((videos - videos.mean(0)) @ model.projection.numpy() >= 0, axis=1)
    assert (np.unpackbits(expected ^ encode(model, features)).mean()) < 1e-3


def test_components_are_those_of_pca(features):
    model = PCAH.for_dataset(features, 8).prepare(features)
    exact = PCA(8).fit(pooled(features, "mean")).components_
    agreement = np.abs(np.sum(exact * model.projection.numpy().T, axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-3)


def test_itq_rotates_and_loses_less_to_the_signs(features):
    plain = PCAH.for_dataset(features, 16).prepare(features)
    rotated = ITQ.for_dataset(features, 16).prepare(features)
    gram = rotated.projection.T @ rotated.projection
    torch.testing.assert_close(gram, torch.eye(16), atol=1e-4, rtol=0)

    def lost(model):
        values = model.project(features.rows(range(len(features))))
        return (values - values.sign()).square().mean()

    assert lost(rotated) < lost(plain)


@pytest.mark.parametrize("method", [LSH, ITQ])
def test_the_seed_decides_the_codes(features, method):
    first, again, other = (
        encode(method.for_dataset(features, 16).prepare(features, seed=s), features)
        for s in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_more_bits_than_components(features):
    with pytest.raises(ValueError, match="one principal component a bit: 64 bits"):
        PCAH.for_dataset(features, 64).prepare(features)
    with pytest.raises(ValueError, match="pooling"):
        LSH.for_dataset(features, 16, pooling="max")


def test_baselines_are_saved_like_every_model(features, tmp_path):
    model = ITQ.for_dataset(features, 16).prepare(features)
    save(model, tmp_path / "itq.pt")
    assert np.array_equal(encode(load(tmp_path / "itq.pt"), features), encode(model, features))
