"""S5VH and AutoSSVH on the digit stories, as released and as their papers mean them, beside ConMH.

    python benchmarks/digit_stories_newer.py [EPOCHS [SEEDS]]

64 bits, 2 layers of 128, half of the frames hidden, which suits ConMH best here, and one recipe for
all. S5VH, whose layers take four times ConMH's time, has one layer of 96 and twice the batch, so
that 15 epochs take less than two minutes on two cores. Clusters and warm-ups are FCVID's in
proportion to the videos and the epochs; the weights of S5VH are those of its recipe for UCF101, the
nearest in size. A line a training: mAP@20 on categories and on stories, seconds without `prepare`;
then means and deviations.
"""

import sys

import numpy as np

from vidhash_lab import ITQ, S5VH, AutoSSVH, ConMH, encode, fit, open_dataset, score

SIZES = {"hidden_dim": 128, "depth": 2, "decoder_dim": 96, "mask_ratio": 0.5}
RECIPE = {"batch_size": 128, "learning_rate": 3e-3, "schedule": "one-cycle"}
S5VH_SIZES = SIZES | {"hidden_dim": 96, "depth": 1, "decoder_dim": 48}
S5VH_SIZES |= {"num_clusters": 100, "cluster_dim": 128, "warm_up_epochs": 2}
S5VH_SIZES |= {"contrastive_weight": 1.0, "alignment_weight": 0.1}
HEADS = SIZES | {"heads": 4}
AUTOSSVH_SIZES = HEADS | {"num_clusters": (22, 44, 88), "warm_up_epochs": 2, "voting_weight": 0.2}
ROWS = {
    "ITQ": (ITQ, {}),
    "ConMH": (ConMH, HEADS),
    "S5VH as released": (S5VH, S5VH_SIZES | {"centres": "learned"}),
    "S5VH as meant": (S5VH, S5VH_SIZES | {"shared_directions": False}),
    "AutoSSVH as released": (AutoSSVH, AUTOSSVH_SIZES | {"sampler": "random"}),
    "AutoSSVH as meant": (AutoSSVH, AUTOSSVH_SIZES),
}


def train(method, sizes, data, epochs, seed):
    """Train one model -> mAP@20 on categories, on stories, and seconds of the epochs."""
    model = method.for_dataset(data, bits=64, seed=seed, **sizes)
    recipe = RECIPE | {"epochs": epochs} if sizes else {}
    recipe |= {"batch_size": 256} if method is S5VH else {}
    history = fit(model, data.train, seed=seed, **recipe)
    codes = encode(model, data.query), encode(model, data.database)
    kinds = "labels", "fine_labels"
    found = [score(codes, data, labels=kind).map_at[20] for kind in kinds]
    return *found, history.seconds - history.prepare_seconds


def main():
    """Print a line a training, then a line a row."""
    epochs, seeds = (int(n) for n in (sys.argv[1:] + ["15", "3"][len(sys.argv) - 1 :]))
    data = open_dataset("digit-stories")
    results = {name: [] for name in ROWS}
    for seed in range(seeds):
        for name, (method, sizes) in ROWS.items():
            results[name].append(train(method, sizes, data, epochs, seed))
            print(f"seed {seed}, {name}: {np.round(results[name][-1], 3).tolist()}", flush=True)
    for name, runs in results.items():
        (categories, stories, seconds), deviation = np.mean(runs, 0), np.std(runs, 0, ddof=1)
        print(
            f"{name}: mAP@20 {categories:.3f} ± {deviation[0]:.3f}, stories {stories:.3f} ± "
            f"{deviation[1]:.3f}, {seconds:.0f} s a training"
        )


if __name__ == "__main__":
    main()
