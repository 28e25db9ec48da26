"""Codes: packing keeps every bit, encoding gives the same codes whatever the batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vidhash_lab.data.features import FeatureSet
from vidhash_lab.models.conmh import ConMH
from vidhash_lab.retrieval.codes import encode, pack, unpack

SHAPES = st.tuples(st.integers(1, 9), st.sampled_from([8, 16, 48, 64]))


@given(SHAPES.flatmap(lambda shape: arrays(np.int8, shape, elements=st.sampled_from([-1, 1]))))
def test_unpack_undoes_pack(codes):
    packed = pack(codes)
    assert packed.dtype == np.uint8 and packed.shape == (len(codes), codes.shape[1] // 8)
    assert np.array_equal(unpack(packed), codes)
    assert np.array_equal(packed, np.packbits(codes == 1, axis=1))


@pytest.mark.parametrize(
    "codes, says",
    [(torch.ones(3, 12), "multiple of 8"), (torch.zeros(3, 16), "sign first"), ([1, -1], "N, K")],
)
def test_what_is_no_code_is_refused(codes, says):
    with pytest.raises(ValueError, match=says):
        pack(codes)


def test_encode_is_the_model_on_every_video(random_features):
    features = FeatureSet(random_features())
    model = ConMH.for_dataset(features, 16, hidden_dim=16, depth=1, heads=2, decoder_dim=12)
    codes = encode(model, features)
    assert model.training  # as it was before
    with torch.no_grad():
        expected = pack(model.eval().encode(features.rows(range(64))))
    assert np.array_equal(codes, expected)
    assert np.array_equal(encode(model, features, batch_size=5), expected)
