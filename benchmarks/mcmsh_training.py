"""Training throughput of MCMSH at FCVID's shape against a plain transcription, and encoding.

The transcription does what the released code does: a dense graph whose rows are scanned with numpy,
five videos an item, frames corrupted one at a time, collated by a DataLoader with one worker, five
passes in float32 through gates made of convolutions. Both learn from the same file of random
features with the same anchors. Then the encoding time of MCMSH and BTH in one run, batch 1 and 128.

python benchmarks/mcmsh_training.py
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vidhash_lab import BTH, MCMSH, FeatureSet, fit, losses
from vidhash_lab.models.blocks import Dropout
from vidhash_lab.models.bth import BTHConfig
from vidhash_lab.models.mcmsh import CHANNEL_REDUCTION, MCMSHConfig, ShortRange, along, mix
from vidhash_lab.runs import median_milliseconds

VIDEOS, BATCH, STEPS = 2560, 128, 8
CONFIG = MCMSHConfig(num_anchors=200)


class PlainGate(nn.Module):
    """One gate with torch's own convolutions and pooling; `kind` is "lrd", "mrd" or "srd"."""

    def __init__(self, gate, kind):
        super().__init__()
        self.gate, self.kind, self.bn1, self.bn2 = gate, kind, gate.bn1, gate.bn2

    def forward(self, x):  # (B, n, c)
        x = self.gate.fc1(x)
        if self.kind == "lrd":
            y = self.bn2(self.gate.deconv(F.relu(self.bn1(self.gate.conv(x.mean(1))))))
            return self.gate.fc2(x * torch.sigmoid(y)[:, None])
        y = x.transpose(1, 2)
        y = F.adaptive_avg_pool1d(y, x.shape[1] // 3) if self.kind == "mrd" else y
        y = torch.sigmoid(self.bn2(self.gate.deconv(F.relu(self.bn1(self.gate.conv(y))))))
        y = F.adaptive_avg_pool1d(y, x.shape[1]) if self.kind == "mrd" else y
        return self.gate.fc2(x * y.transpose(1, 2))


class Plain(nn.Module):
    """MC-MLP and hash layer as the paper draws them, on (B, T, D)."""

    def __init__(self):
        super().__init__()
        self.ours = MCMSH(CONFIG)
        net = self.ours.mc_mlp
        self.gates = nn.ModuleList(
            nn.ModuleList(PlainGate(getattr(place, kind), kind) for kind in ("lrd", "mrd", "srd"))
            for place in (net.token_mixer, net.channel_mixer, net)
        )

    def mlp(self, mlp, x):
        x = F.dropout(F.gelu(mlp.fc1(x)), 0.5, self.training)
        return F.dropout(mlp.fc2(x), 0.5, self.training)

    def forward(self, frames):
        net = self.ours.mc_mlp
        x = F.relu(net.preproj(frames))
        mixed = self.mlp(net.token_mixer.mlp, x.transpose(1, 2))
        x = x + sum(gate(mixed) for gate in self.gates[0]).transpose(1, 2)
        mixed = self.mlp(net.channel_mixer.mlp, x)
        x = x + sum(gate(mixed) for gate in self.gates[1])
        hidden = sum(gate(x) for gate in self.gates[2])
        return hidden, torch.tanh(self.ours.binary(hidden)).mean(1)


class PlainItems(Dataset):
    """Five videos an item, their partners found by scanning a row of the dense graph."""

    def __init__(self, path, graph, targets):
        self.path, self.file, self.targets = path, None, targets.numpy()
        self.tags = graph.tags(np.arange(VIDEOS)).astype(np.float32)

    def __len__(self):
        return VIDEOS

    def partner(self, video, tag):
        found = np.where(self.tags[video] == tag)[0]
        found = found if len(found) else np.where(self.tags[video] == 0)[0]
        return found[random.randrange(len(found))]

    def corrupt(self, video):
        for frame in video:
            chance = random.random() / 0.15
            if chance < 0.8:
                frame[:] = 0
            elif 0.8 <= chance < 0.9:
                frame[:] = self.file[random.randrange(VIDEOS), random.randrange(len(video))]
        return video

    def __getitem__(self, video):
        if self.file is None:
            self.file = h5py.File(self.path)["feats"]
        alike = random.random() > 0.5
        other = self.partner(video, 1 if alike else 2)
        clean = [self.partner(video, tag) for tag in (1, 2, 2)]
        pair = [self.corrupt(self.file[each]) for each in (video, other)]
        return {
            "double": np.concatenate(pair),
            "triple": np.concatenate([self.file[each] for each in clean]),
            "label": 1.0 if alike else -1.0,
            "targets": self.targets[[video, other]],
        }


def plain_training(path, prepared):
    """Train by the transcription -> videos a second."""
    model = Plain().train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    items = PlainItems(path, prepared.graph, prepared.targets)
    loader = DataLoader(items, BATCH, shuffle=True, num_workers=1)
    started = None
    for step, batch in enumerate(loader):
        if step == 2:  # the first two warm up
            started = time.perf_counter()
        if step == 2 + STEPS:
            break
        clips = [*batch["double"].split(25, 1), *batch["triple"].split(25, 1)]
        hidden, codes = zip(*(model(clip) for clip in clips))
        target1, target2 = batch["targets"].unbind(1)
        loss = (
            0.8 * (losses.cluster(hidden[0], target1) + losses.cluster(hidden[1], target2))
            + 0.1 * losses.similarity(codes[0], codes[1], batch["label"].float())
            + 0.01 * (losses.quantisation(codes[0]) + losses.quantisation(codes[1]))
            + 0.01 * losses.quadruplet(codes[0], *codes[2:])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return STEPS * BATCH / (time.perf_counter() - started)


def our_training(train, prepared, precision):
    """Train by `fit` -> videos a second, the median of the epochs after the first."""
    history = fit(prepared, train, epochs=3, batch_size=BATCH, precision=precision)
    return statistics.median(history.column("videos_per_second")[1:])


def forward_and_backward(function, *inputs):
    """Call a function and send a gradient back through it."""
    function(*inputs).sum().backward()


def parts_of_a_gate():
    """Time a gate's mixing and its convolutions beside torch's layers, in milliseconds."""
    n, B, c = 25, BATCH, 256
    gate, x = ShortRange(n, c, CHANNEL_REDUCTION), torch.randn(n, B, c, requires_grad=True)
    plain = x.detach().transpose(0, 1).contiguous().requires_grad_()  # (B, n, c)
    reduced = torch.randn(n, B, c // CHANNEL_REDUCTION, requires_grad=True)
    pairs = {
        "mixing over n": ((mix, x, gate.fc1), (gate.fc1, plain)),
        "reducing channels": (
            (along, x, gate.conv),
            (lambda x: gate.conv(x.transpose(1, 2)), plain),
        ),
        "restoring channels": (
            (along, reduced, gate.deconv),
            (lambda x: gate.deconv(x.permute(1, 2, 0)), reduced),
        ),
    }
    for what, calls in pairs.items():
        ours, theirs = (median_milliseconds(forward_and_backward, *call) for call in calls)
        print(f"{what}: {ours:.2f} ms, torch's layer {theirs:.2f} ms, {theirs / ours:.1f}x")
    values = torch.randn(BATCH, 25, 512)
    for name, dropout in {"signs of bytes": Dropout(0.5), "nn.Dropout": nn.Dropout(0.5)}.items():
        print(f"dropout, {name}: {median_milliseconds(dropout, values):.2f} ms")


def main():
    """Print videos a second of each, the ratios, and encoding times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.h5"
        with h5py.File(path, "w") as file:
            feats = file.create_dataset("feats", (VIDEOS, 25, 4096), "float32")
            for row in range(0, VIDEOS, 64):
                noise = np.random.default_rng(row).standard_normal((64, 25, 4096), np.float32)
                place = np.random.default_rng(row // 256).standard_normal(4096, np.float32)
                feats[row : row + 64] = np.maximum(noise + place, 0)
        train = FeatureSet(path)
        prepared = MCMSH(CONFIG).prepare(train)
        plain = plain_training(path, prepared)
        print(f"plain transcription {plain:.0f} videos/s", flush=True)
        for precision in ("auto", "32-true"):
            ours = our_training(train, prepared, precision)
            print(
                f"fit, precision {precision}: {ours:.0f} videos/s, {ours / plain:.2f}x", flush=True
            )
    parts_of_a_gate()
    models = {"MCMSH": MCMSH(MCMSHConfig()).eval(), "BTH": BTH(BTHConfig()).eval()}
    for batch in (1, 128):
        frames = torch.randn(batch, 25, 4096)
        for name, model in models.items():
            with torch.inference_mode():
                milliseconds = median_milliseconds(model.encode, frames) / batch
            print(f"encoding, batch {batch}: {name} {milliseconds:.3f} ms a video")
        transcription = Plain().eval()
        with torch.inference_mode():
            milliseconds = median_milliseconds(transcription, frames) / batch
        print(f"encoding, batch {batch}: the plain MCMSH {milliseconds:.3f} ms a video")


if __name__ == "__main__":
    main()
