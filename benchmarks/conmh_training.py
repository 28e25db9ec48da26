"""ConMH `small` at FCVID's shape: training videos a second against a plain transcription.

The transcription follows the released code: it embeds all T frames for each of two separate
passes, in float32, from a DataLoader with one worker that collates video by video. Both train on
the same random float32 file; each figure is the median of the steps after warm-up, the ratios
come from one run. With a GPU, pass its name: `python benchmarks/conmh_training.py cuda`.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vidhash_lab import ConMH, ConMHConfig, FeatureSet, encode, fit
from vidhash_lab.losses import debiased_contrastive
from vidhash_lab.models.conmh import draw_masks, split_places

VIDEOS, BATCH, STEPS, WARM_UP = 1024, 128, 10, 2


class PlainDataset(Dataset):
    """One video and its two masks at a time, as the released loader makes them."""

    def __init__(self, path, config):
        with h5py.File(path) as file:
            self.frames, self.config = file["feats"][:], config

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        masks = draw_masks(1, self.config, None)[:, 0]
        return torch.from_numpy(self.frames[index]), masks[0], masks[1]


def plain_view(model, frames, masked):
    """One view: embed all frames, then pick the visible ones."""
    embedded = model.encoder.patch_embed(frames) + model.encoder.positions
    visible, hidden = split_places(masked, model.config.num_visible)
    row = torch.arange(len(frames), device=frames.device)[:, None]
    states = model.encoder.head(model.encoder.norm(model.encoder.blocks(embedded[row, visible])))
    hashed = torch.tanh(model.ln(model.binary(states)))
    codes = hashed + (torch.where(hashed > 0, 1.0, -1.0) - hashed).detach()
    guess = model.reconstruct(codes, visible, hidden)
    return codes.mean(1), torch.nn.functional.mse_loss(guess, frames[row, hidden])


def plain_steps(path, config, device):
    """Seconds of each step of the plain transcription, loading included."""
    model = ConMH(config).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = DataLoader(PlainDataset(path, config), BATCH, shuffle=True, num_workers=1)
    seconds, started = [], time.perf_counter()
    while len(seconds) < STEPS + WARM_UP:
        for frames, masked1, masked2 in loader:
            frames, masked1, masked2 = (t.to(device) for t in (frames, masked1, masked2))
            code1, loss1 = plain_view(model, frames, masked1)
            code2, loss2 = plain_view(model, frames, masked2)
            loss = loss1 + loss2 + debiased_contrastive(code1, code2, 0.5, 0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
    return seconds[WARM_UP:]


def our_steps(path, config, device, precision):
    """Seconds of each step of `fit`, by epoch, loading included."""
    torch.manual_seed(0)
    model, train = ConMH(config), FeatureSet(path)
    epochs = 1 + -(-(STEPS + WARM_UP) * BATCH // VIDEOS)
    history = fit(model, train, epochs=epochs, batch_size=BATCH, device=device, precision=precision)
    return [row["seconds"] / (VIDEOS // BATCH) for row in history[1:]], model, train


def main():
    """Print videos a second of both, and their ratio."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    config = ConMHConfig()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fcvid_shape.h5"
        with h5py.File(path, "w") as file:
            shape = (VIDEOS, config.num_frames, config.feature_dim)
            file["feats"] = np.random.default_rng(0).random(shape, np.float32)
        plain = BATCH / statistics.median(plain_steps(path, config, device))
        print(f"plain transcription, float32: {plain:.1f} videos a second ({device})")
        for precision in ("32-true", "auto"):
            seconds, model, train = our_steps(path, config, device, precision)
            rate = BATCH / statistics.median(seconds)
            print(f"fit, {precision}: {rate:.1f} videos a second, {rate / plain:.2f} times")
        encode(model, train, device=device)
        started = time.perf_counter()
        encode(model, train, device=device)
        print(f"encode: {VIDEOS / (time.perf_counter() - started):.1f} videos a second")


if __name__ == "__main__":
    main()
