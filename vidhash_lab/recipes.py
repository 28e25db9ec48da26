"""The papers' hyper-parameters per method and data set, as their released code has them.

ConMH (gimpong/AAAI23-ConMH, d6dd5b5) trains five epochs more than it keeps: here are the epochs
after which the released checkpoint was written. MCMSH (a483446) and BTH (c97db40) were released
for FCVID only. All train with Adam without weight decay.

S5VH (gimpong/AAAI25-S5VH, 6906e7b) has AdamW, whose decay of 1e-4 takes a thousandth of the weights
over all epochs: here it is Adam too. Its released code and the logs beside its published numbers do
not agree on FCVID. The recipe is the code's; with `sizes | S5VH_LOGGED` it is that of the logs.

AutoSSVH (d973099) keeps the epoch that did best on the test queries, of 805 that it trains; its
random sampler is what its training runs.
"""

from vidhash_lab.training import CosineDecay, StepDecay

CONMH = {"learning_rate": 1e-4, "schedule": StepDecay(every=20, factor=0.9, floor=1e-5 / 1e-4)}
CONMH_SMALL = {"hidden_dim": 256, "depth": 12, "heads": 6, "decoder_dim": 192, "temperature": 0.5}
ANCHORED = {
    "epochs": 56,
    "batch_size": 256,
    "learning_rate": 3e-4,
    "schedule": StepDecay(every=20, factor=0.9, floor=1e-4 / 3e-4),
}
S5VH_SMALL = {"hidden_dim": 256, "depth": 6, "decoder_dim": 192, "temperature": 0.5}
S5VH_LOGGED = {"mask_ratio": 0.3, "alignment_weight": 0.001}  # FCVID; the code has 0.75 and 0.01
S5VH = {"learning_rate": 5e-4, "batch_size": 128, "epochs": 350, "schedule": CosineDecay(350)}
S5VH_FCVID = S5VH | {"batch_size": 512, "epochs": 500, "schedule": CosineDecay(500)}


def _s5vh(mask_ratio, contrastive_weight, tau_plus, alignment_weight, clusters, components=512):
    return S5VH_SMALL | {
        "mask_ratio": mask_ratio,
        "contrastive_weight": contrastive_weight,
        "tau_plus": tau_plus,
        "alignment_weight": alignment_weight,
        "num_clusters": clusters,
        "cluster_dim": components,
    }


RECIPES = {
    ("conmh", "fcvid"): (
        CONMH_SMALL | {"mask_ratio": 0.75, "contrastive_weight": 1.0, "tau_plus": 0.1},
        CONMH | {"epochs": 800, "batch_size": 512},
    ),
    ("conmh", "activitynet"): (
        CONMH_SMALL | {"mask_ratio": 0.5, "contrastive_weight": 0.2, "tau_plus": 0.05},
        CONMH | {"epochs": 500, "batch_size": 128},
    ),
    ("conmh", "yfcc"): (
        CONMH_SMALL | {"mask_ratio": 0.75, "contrastive_weight": 1.0, "tau_plus": 0.1},
        CONMH | {"epochs": 40, "batch_size": 128},
    ),
    ("autossvh", "fcvid"): (
        CONMH_SMALL
        | {"mask_ratio": 0.75, "contrastive_weight": 1.0, "tau_plus": 0.1, "sampler": "random"}
        | {"voting_weight": 0.01, "num_clusters": (250, 500, 1000), "warm_up_epochs": 100},
        CONMH | {"epochs": 800, "batch_size": 512},
    ),
    ("mcmsh", "fcvid"): (
        {
            "hidden_dim": 256,
            "dropout": 0.5,
            "num_anchors": 2000,
            "corruption": 0.15,
            "cluster_weight": 0.8,
            "similarity_weight": 0.1,
            "quantisation_weight": 0.01,
            "quadruplet_weight": 0.01,
        },
        ANCHORED,
    ),
    ("bth", "fcvid"): (
        {
            "hidden_dim": 256,
            "dropout": 0.1,
            "num_anchors": 2000,
            "corruption": 0.15,
            "reconstruction_weight": 0.92,
            "similarity_weight": 0.08,
            "cluster_weight": 0.8,
        },
        ANCHORED,
    ),
    ("s5vh", "fcvid"): (_s5vh(0.75, 2.5, 0.1, 0.01, 450), S5VH_FCVID),
    ("s5vh", "activitynet"): (_s5vh(0.5, 0.2, 0.05, 0.001, 100), S5VH),
    ("s5vh", "ucf101"): (_s5vh(0.5, 1.0, 0.1, 0.1, 101), S5VH),
    ("s5vh", "hmdb51"): (_s5vh(0.5, 1.0, 0.05, 0.1, 100, 1024), S5VH),
}


def published_recipe(method: str, dataset: str) -> tuple[dict, dict]:
    """Return the published (sizes, recipe) of a method on a data set, dicts of one's own.

    `sizes` are fields for `Method.for_dataset(dataset, bits=…, **sizes)`, `recipe` arguments of
    `fit`; released code computes in `precision="32-true"`. ValueError for a pair without a recipe.

    >>> sizes, recipe = published_recipe("conmh", "fcvid")
    >>> sizes["mask_ratio"], recipe["epochs"]
    (0.75, 800)
    """
    if (method, dataset) not in RECIPES:
        there = ", ".join(f"{m} on {d}" for m, d in RECIPES)
        raise ValueError(f"no published recipe of {method!r} on {dataset!r}, only {there}")
    sizes, recipe = RECIPES[method, dataset]
    return dict(sizes), dict(recipe)
