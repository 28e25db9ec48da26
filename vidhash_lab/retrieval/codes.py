"""Binary codes: encode a feature set, pack and unpack.

Codes are kept packed, (N, K/8) uint8 in the order of `numpy.packbits`; bit 1 stands for +1.
N videos, K bits.
"""

import lightning_fabric
import numpy as np
import torch


def encode(model, feature_set, *, batch_size=256, device="auto"):
    """Hash every video of a feature set -> packed codes (N, K/8) uint8.

    Runs in float32 and evaluation mode: a bit is a sign, and bfloat16 would flip those near zero.
    The model comes back in the mode and on the device it was on.
    """
    model.check_fits(feature_set)
    fabric = lightning_fabric.Fabric(accelerator=device, devices=1)
    was_training, home = model.training, model.device
    model.eval().to(fabric.device)
    try:
        with torch.inference_mode():
            codes = [
                pack(model.encode(fabric.to_device(frames)))
                for _, frames in feature_set.batches(batch_size)
            ]
    finally:
        model.train(was_training).to(home)
    return np.concatenate(codes)


def pack(codes):
    """Pack codes (N, K) in {-1, +1} -> (N, K/8) uint8."""
    codes = torch.as_tensor(codes)
    if codes.ndim != 2 or codes.shape[1] % 8:
        raise ValueError(f"codes are {tuple(codes.shape)}; expected (N, K) with K a multiple of 8")
    if not bool((codes.abs() == 1).all()):
        raise ValueError("codes hold other values than -1 and +1; take their sign first")
    return np.packbits((codes > 0).cpu().numpy(), axis=1)


def unpack(packed):
    """Unpack codes (N, K/8) uint8 -> (N, K) int8 in {-1, +1}."""
    return np.unpackbits(packed, axis=1).astype(np.int8) * 2 - 1
