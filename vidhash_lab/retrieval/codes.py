"""Binary codes of N videos, K bits: encode a feature set, pack and unpack.

Codes are kept packed, (N, K/8) uint8 in the order of `numpy.packbits`; bit 1 stands for +1.
"""

import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vidhash_lab.data.features import FeatureSet
from vidhash_lab.retrieval import cluster

if TYPE_CHECKING:
    from distributed import Client

BATCHES = 4  # of a task of a cluster, at most


def encode(
    model: nn.Module,
    feature_set: FeatureSet,
    *,
    batch_size: int = 256,
    device: str = "auto",
    client: "Client | None" = None,
) -> np.ndarray:
    """Hash every video of a feature set -> packed codes (N, K/8) uint8.

    In float32: bfloat16 would flip bits near zero. ValueError for videos that do not fit the model.

    With a `distributed.Client`, blocks of videos go to its workers, which read the set's files
    themselves. Codes are the same to the last bit where workers have the same processor and as many
    threads of torch (dask starts them with one, unless told otherwise): other sums may turn a bit.
    See `cluster.check_cluster` for what it raises then.

    >>> from vidhash_lab import LSH, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> encode(LSH.for_dataset(data, bits=16).prepare(data.train, seed=0), data.query).shape
    (60, 2)
    """
    model.check_fits(feature_set)
    if client is not None:
        return _encode_on_cluster(model, feature_set, batch_size, device, client)
    import lightning_fabric  # slow to import, and only this function needs it

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


def _encode_on_cluster(model, feature_set, batch_size, device, client):
    batch_bytes = 4 * batch_size * math.prod(feature_set.features.shape[1:])
    weight_bytes = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    needs = {"task_bytes": 2 * BATCHES * batch_bytes, "kept_bytes": 2 * weight_bytes}
    threads = sum(cluster.check_cluster(client, "encode", **needs))
    batches = math.ceil(len(feature_set) / batch_size / (4 * threads))
    rows = batch_size * min(BATCHES, batches)  # whole batches: those of one process
    kept = cluster.submit(client, _KeptModel, copy.deepcopy(model).cpu(), device)

    def tasks():
        for start in range(0, len(feature_set), rows):
            block = feature_set[start : start + rows]
            yield start, cluster.submit(client, _encode_block, kept, block, batch_size)

    codes = dict(cluster.completed(client, tasks(), 3 * threads))
    return np.concatenate([codes[start] for start in sorted(codes)])


class _KeptModel:
    """A model as a worker keeps it: on the worker's device, ready; it travels by way of the CPU."""

    def __init__(self, model, device):
        import lightning_fabric

        model.warm_up()  # here, since a worker of several threads would do it in all at once
        where = lightning_fabric.Fabric(accelerator=device, devices=1).device
        self.model, self.device = model.eval().to(where), device

    def __reduce__(self):
        return _KeptModel, (copy.deepcopy(self.model).cpu(), self.device)


def _encode_block(kept, block, batch_size):
    return encode(kept.model, block, batch_size=batch_size, device=kept.device)


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
