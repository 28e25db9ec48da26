"""Baselines: what PCA and ITQ promise, checked against their definitions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from vidhash_lab.checkpoints import load, save
from vidhash_lab.data import FeatureSet
from vidhash_lab.models import baselines
from vidhash_lab.models.baselines import ITQ, LSH, PCAH, exact_pca
from vidhash_lab.retrieval.codes import encode


@pytest.fixture
def features(random_features):
    return FeatureSet(random_features(shape=(200, 4, 20), labels=5))


def pooled(features, pooling):
    frames = features.rows(range(len(features))).numpy()  # four frames: thirds of 2, 1 and 1
    borders = {"mean": (0, 4), "thirds": (0, 2, 3, 4), "time": range(5)}[pooling]
    return np.hstack([frames[:, a:b].mean(1) for a, b in pairwise(borders)])


@pytest.mark.parametrize("method", [LSH, PCAH, ITQ])
@pytest.mark.parametrize("pooling, width", [("mean", 20), ("thirds", 60), ("time", 80)])
def test_bits_are_signs_of_a_projection_of_centred_videos(features, method, pooling, width):
    model = method.for_dataset(features, 16, pooling=pooling).prepare(features)
    assert model.projection.shape == (width, 16)
    videos = pooled(features, pooling)
    np.testing.assert_allclose(model.mean, videos.mean(0), atol=1e-5)
    expected = np.packbits((videos - videos.mean(0)) @ model.projection.numpy() >= 0, axis=1)
    assert (np.unpackbits(expected ^ encode(model, features)).mean()) < 1e-3


def test_components_are_those_of_pca(features, monkeypatch):
    exact = PCA(8).fit(pooled(features, "mean"))
    model = PCAH.for_dataset(features, 8).prepare(features)
    found = model.projection.numpy().T
    np.testing.assert_allclose(np.abs(found), np.abs(exact.components_), atol=1e-4)
    monkeypatch.setattr(baselines, "EXACT", 19)  # one dimension less than there are
    model = PCAH.for_dataset(features, 8).prepare(features)
    agreement = np.abs(np.sum(exact.components_ * model.projection.numpy().T, axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("batch, count", [(100, 32), (333, 10), (2000, 96)])
def test_pca_is_exact_whatever_the_batches_and_the_mean(batch, count, offset):
    draw = torch.Generator().manual_seed(0)
    scales = 0.97 ** torch.arange(96.0)
    rows = torch.randn(2000, 96, generator=draw) * scales + offset
    turn, _ = torch.linalg.qr(torch.randn(96, 96, generator=draw, dtype=torch.float64))
    rows = (rows.double() @ turn).float()
    mean, components = exact_pca(rows.split(batch), count)
    centred = rows.double() - rows.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(mean.double(), rows.double().mean(0), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(components.abs().double(), axes[:count].T.abs(), rtol=0, atol=2e-3)
    shared = torch.linalg.svdvals(components.double().T @ axes[:count].T)  # 1: the same subspace
    assert shared.min() > 1 - 1e-6
    largest = components.gather(0, components.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


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
    message = r'one principal component a bit: 64 bits .*at most 20, or pooling="time", .* 80 dim'
    with pytest.raises(ValueError, match=message):
        PCAH.for_dataset(features, 64).prepare(features)
    with pytest.raises(ValueError, match=r"Take fewer bits, at most 80\.$"):
        ITQ.for_dataset(features, 128, pooling="time").prepare(features)
    with pytest.raises(ValueError, match="pooling"):
        LSH.for_dataset(features, 16, pooling="max")
    with pytest.raises(ValueError, match="2 frames have no thirds"):
        baselines.BaselineConfig(num_frames=2, pooling="thirds")


def test_baselines_are_saved_like_every_model(features, tmp_path):
    model = ITQ.for_dataset(features, 16).prepare(features)
    save(model, tmp_path / "itq.pt")
    assert np.array_equal(encode(load(tmp_path / "itq.pt"), features), encode(model, features))
