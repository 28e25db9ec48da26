"""ConMH on the digit stories: seconds of a training, mAP@20 by mask ratio, 64 bits, 3 seeds.

2 layers of 128, 15 epochs; ITQ on mean features is the line to beat. Expected ties, categories.
"""

import numpy as np

from vidhash_lab import ITQ, ConMH, fit, open_dataset, score

SIZES = {"hidden_dim": 128, "depth": 2, "heads": 4, "decoder_dim": 96}
RECIPE = {"epochs": 15, "batch_size": 128, "learning_rate": 3e-3, "schedule": "one-cycle"}


def main():
    """Print one line a ratio."""
    data = open_dataset("digit-stories")
    itq = score(ITQ.for_dataset(data).prepare(data.train), data)
    print(f"ITQ on mean features: {itq.map_at[20]:.3f}")
    for ratio in (0.25, 0.5, 0.75, 0.9):
        scores, seconds = [], []
        for seed in range(3):
            model = ConMH.for_dataset(data, seed=seed, mask_ratio=ratio, **SIZES)
            history = fit(model, data.train, **RECIPE, seed=seed)
            scores.append(score(model, data).map_at[20])
            seconds.append(sum(history.column("seconds")))
        print(
            f"ConMH, mask ratio {ratio}: {np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f} "
            f"{np.round(scores, 3)}, {np.median(seconds):.1f} s a training"
        )


if __name__ == "__main__":
    main()
