"""Binary codes of N videos, K bits: encode a feature set, pack and unpack.

Codes are kept packed, (N, K/8) uint8 in the order of `numpy.packbits`; bit 1 stands for +1.
"""

import numpy as np
import torch
from torch import nn

from vidhash_lab.data.features import FeatureSet


def encode(
    model: nn.Module, feature_set: FeatureSet, *, batch_size: int = 256, device: str = "auto"
) -> np.ndarray:
    """Hash every video of a feature set -> packed codes (N, K/8) uint8.

    In float32: bfloat16 would flip bits near zero. ValueError for videos that do not fit the model.

    >>> from vidhash_lab import LSH, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> encode(LSH.for_dataset(data, bits=16).prepare(data.train, seed=0), data.query).shape
    (60, 2)
    """
    import lightning_fabric  # slow to import, and only this function needs it

    model.check_fits(feature_set)
    model.warm_up()
    fabric = lightning_fabric.Fabric(accelerator=device, devices=1)
    was_training, device_before = model.training, model.device
    model.eval().to(fabric.device)
    try:
        with torch.inference_mode():
            batches = (fabric.to_device(frames) for _, frames in feature_set.batches(batch_size))
            return np.concatenate([pack(model.encode(frames)) for frames in batches])
    finally:
        model.train(was_training).to(device_before)


def pack(codes: torch.Tensor | np.ndarray) -> np.ndarray:
    """Pack codes (N, K) in {-1, +1} -> (N, K/8) uint8; ValueError for any other shape or value.

    >>> pack(np.array([[1, -1, -1, -1, -1, -1, -1, 1]]))
    array([[129]], dtype=uint8)
    """
    codes = torch.as_tensor(codes)
    if codes.ndim != 2 or codes.shape[1] % 8:
        raise ValueError(f"codes are {tuple(codes.shape)}; expected (N, K) with K a multiple of 8")
    if not bool((codes.abs() == 1).all()):
        raise ValueError("codes hold other values than -1 and +1; take their sign first")
    return np.packbits((codes > 0).cpu().numpy(), axis=1)


def unpack(packed: np.ndarray) -> np.ndarray:
    """Unpack codes (N, K/8) uint8 -> (N, K) int8 in {-1, +1}.

    >>> unpack(np.array([[129]], dtype=np.uint8))
    array([[ 1, -1, -1, -1, -1, -1, -1,  1]], dtype=int8)
    """
    return np.unpackbits(packed, axis=1).astype(np.int8) * 2 - 1
