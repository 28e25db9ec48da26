"""CHAIN's tasks on the digit stories: seconds of a training and mAP@20, 64 bits, 3 seeds.

2 layers of 128, 20 epochs, M 12, four views. Expected ties; categories, then stories.
python benchmarks/digit_stories_chain.py [EPOCHS]
"""

import sys

import numpy as np

from vidhash_lab import CHAIN, encode, fit, open_dataset, score

RECIPE = {"batch_size": 128, "learning_rate": 3e-3, "schedule": "one-cycle"}
TASKS = {
    "contrastive": {"order_weight": 0, "scene_weight": 0},
    "+ order": {"scene_weight": 0},
    "+ scene": {"order_weight": 0},
    "all": {},
}


def main():
    """Print one line a set of tasks."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    data = open_dataset("digit-stories", num_views=4)
    for name, changes in TASKS.items():
        scores, seconds = [], []
        for seed in range(3):
            model = CHAIN.for_dataset(data, seed=seed, hidden_dim=128, **changes)
            history = fit(model, data.train, epochs=epochs, **RECIPE, seed=seed)
            codes = encode(model, data.query), encode(model, data.database)
            kinds = ("labels", "fine_labels")
            scores.append([score(codes, data, labels=kind).map_at[20] for kind in kinds])
            seconds.append(sum(history.column("seconds")))
        mean, spread = np.mean(scores, axis=0), np.std(scores, axis=0, ddof=1)
        print(
            f"{name:11}: {mean[0]:.3f} ± {spread[0]:.3f}, stories {mean[1]:.3f} ± {spread[1]:.3f}, "
            f"{np.median(seconds):.1f} s a training",
            flush=True,
        )


if __name__ == "__main__":
    main()
