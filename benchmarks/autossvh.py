"""AutoSSVH on the digit stories: what sampler and voting buy, and which frames the sampler picks.

    python benchmarks/autossvh.py [EPOCHS] [SEEDS]

64 bits, 2 layers of 128, half of the frames hidden. Clusters and warm-up are FCVID's, in proportion
to the videos and the epochs. One line a variant: mAP@20 on categories and on stories, seconds of a
training, and the share of distractors (frames that show a wrong digit) among the frames of
1,000 training videos that views show, and among the V that the sampler without noise would take.
"""

import sys

import h5py
import numpy as np
import torch

from vidhash_lab import AutoSSVH, encode, fit, open_dataset, score
from vidhash_lab.models.autossvh import choose

SIZES = {"hidden_dim": 128, "depth": 2, "heads": 4, "decoder_dim": 96, "mask_ratio": 0.5}
RECIPE = {"batch_size": 128, "learning_rate": 3e-3, "schedule": "one-cycle"}
VOTING = {"num_clusters": (22, 44, 88), "warm_up_epochs": 2}
VARIANTS = {
    "random": {"sampler": "random", "voting_weight": 0},
    "random, voting": {"sampler": "random"},
    "learned": {"voting_weight": 0},
    "learned, voting": {},
    "learned, voting, noise 1": {"noise": 1.0},
    "learned, voting, no Gaussian noise": {"noise": 0.0},
    "random, voting of weight 0.2": {"sampler": "random", "voting_weight": 0.2},  # UCF101's
}
LOOKED_AT = 1000


def both_scores(model, data):
    """mAP@20 on categories and on stories."""
    codes = encode(model, data.query), encode(model, data.database)
    return [score(codes, data, labels=kind).map_at[20] for kind in ("labels", "fine_labels")]


@torch.no_grad()
def distractors_picked(model, data, distractors, seed):
    """Share of distractors among the frames that views show, and among the most important ones."""
    videos, draws = torch.arange(LOOKED_AT), torch.Generator().manual_seed(seed)
    batch = model.sample(data.train, videos, draws)
    if model.config.sampler == "random":
        return distractors.expand(2, -1, -1)[~batch["masked"]].float().mean().item(), np.nan
    importances = model.importances(batch["frames"])
    shown = [
        ~choose(importances, noise, model.config.num_visible)[0]
        for noise in (batch["noise"], torch.zeros_like(batch["noise"]))
    ]
    return [distractors.expand(2, -1, -1)[each].float().mean().item() for each in shown]


def main():
    """Print one line a variant."""
    epochs, seeds = (int(n) for n in (sys.argv[1:] + ["15", "1"][len(sys.argv) - 1 :]))
    data = open_dataset("digit-stories")
    with h5py.File(data.train.paths[0]) as file:
        distractors = torch.from_numpy(file["distractors"][:LOOKED_AT])
    print(f"distractors among all frames: {distractors.float().mean():.3f}", flush=True)
    for name, changes in VARIANTS.items():
        rows = []
        for seed in range(seeds):
            model = AutoSSVH.for_dataset(data, seed=seed, **SIZES, **VOTING | changes)
            history = fit(model, data.train, epochs=epochs, seed=seed, **RECIPE)
            picked = distractors_picked(model, data, distractors, seed)
            rows.append([*both_scores(model, data), history.seconds, *picked])
        categories, stories, seconds, shown, important = np.transpose(rows)
        spread = f" ± {categories.std(ddof=1):.3f}" if seeds > 1 else ""
        print(
            f"{name}: mAP@20 {categories.mean():.3f}{spread}, stories {stories.mean():.3f}, "
            f"{np.median(seconds):.0f} s, distractors {shown.mean():.3f} of the frames shown, "
            f"{important.mean():.3f} of the most important",
            flush=True,
        )


if __name__ == "__main__":
    main()
