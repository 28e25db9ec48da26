"""S5VH on the digit stories: mAP@20 by kind of hash centres and of scans, beside ConMH.

    python benchmarks/digit_stories_s5vh.py [EPOCHS [SEED]]

One seed each: semantic or learned centres, one scan for both directions of time or one for each.
Seconds are those of the training without `prepare`.
"""

import sys
from itertools import product

from vidhash_lab import S5VH, ConMH, encode, fit, open_dataset, score

RECIPE = {"batch_size": 128, "learning_rate": 3e-3, "schedule": "one-cycle"}
SIZES = {"hidden_dim": 128, "depth": 2, "decoder_dim": 96}
# 4,000 videos: 100 clusters of 40 on average. Weights of the published recipe of UCF101, the
# nearest in size; the warm-up is a tenth of the epochs there as here.
S5VH_SIZES = SIZES | {"num_clusters": 100, "cluster_dim": 128, "contrastive_weight": 1.0}
S5VH_SIZES |= {"alignment_weight": 0.1, "warm_up_epochs": 2}


def show(name, model, dataset, epochs, seed):
    history = fit(model, dataset.train, epochs=epochs, seed=seed, **RECIPE)
    codes = encode(model, dataset.query), encode(model, dataset.database)
    categories, stories = (
        score(codes, dataset, labels=kind).map_at[20] for kind in ("labels", "fine_labels")
    )
    seconds = sum(history.column("seconds"))
    print(
        f"{name}: mAP@20 {categories:.3f}, stories {stories:.3f}, {seconds:.0f} s "
        f"({history.prepare_seconds:.0f} s to prepare)",
        flush=True,
    )


def main():
    epochs, seed = (int(n) for n in (sys.argv[1:] + ["15", "0"][len(sys.argv) - 1 :]))
    dataset = open_dataset("digit-stories")
    for centres, shared in product(("semantic", "learned"), (True, False)):
        changes = S5VH_SIZES | {"centres": centres, "shared_directions": shared}
        model = S5VH.for_dataset(dataset, bits=64, seed=seed, **changes)
        scans = "one scan" if shared else "two scans"
        show(f"S5VH, {centres} centres, {scans}", model, dataset, epochs, seed)
    model = ConMH.for_dataset(dataset, bits=64, seed=seed, heads=4, **SIZES)
    show("ConMH", model, dataset, epochs, seed)


if __name__ == "__main__":
    main()
