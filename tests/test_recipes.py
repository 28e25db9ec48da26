"""The published recipes fit this kit's methods, data sets and `fit`."""

import inspect

import numpy as np
import pytest

from vidhash_lab import METHODS, fit, published_recipe
from vidhash_lab.data.released.sets import PUBLISHED_SETS
from vidhash_lab.recipes import RECIPES, S5VH_LOGGED


@pytest.mark.parametrize("method, dataset", RECIPES)
def test_every_entry_builds_its_config_and_names_arguments_of_fit(method, dataset):
    sizes, recipe = published_recipe(method, dataset)
    published = PUBLISHED_SETS[dataset]
    config = METHODS[method].Config(
        bits=64, num_frames=published.num_frames, feature_dim=published.feature_dim, **sizes
    )
    assert all(getattr(config, name) == value for name, value in sizes.items())
    assert set(recipe) == {"epochs", "batch_size", "learning_rate", "schedule"}
    assert set(recipe) < set(inspect.signature(fit).parameters)
    assert recipe["batch_size"] <= published.train.videos


@pytest.mark.parametrize("method, start, floor", [("conmh", 1e-4, 1e-5), ("bth", 3e-4, 1e-4)])
def test_the_learning_rate_falls_as_in_the_released_code(method, start, floor):
    _, recipe = published_recipe(method, "fcvid")
    rates = [recipe["learning_rate"] * recipe["schedule"](epoch) for epoch in range(1000)]
    assert np.allclose(rates[0:60:20], [start, 0.9 * start, 0.81 * start])
    assert rates[19] == rates[0] and np.isclose(min(rates), floor) and np.isclose(rates[-1], floor)


def test_both_versions_of_s5vh_on_fcvid():
    sizes, recipe = published_recipe("s5vh", "fcvid")
    config, logged = METHODS["s5vh"].Config(**sizes), METHODS["s5vh"].Config(**sizes | S5VH_LOGGED)
    assert config == METHODS["s5vh"].Config()
    assert (config.num_visible, config.alignment_weight) == (7, 0.01)
    assert (logged.num_visible, logged.alignment_weight) == (18, 0.001)
    rates = [recipe["learning_rate"] * recipe["schedule"](epoch) for epoch in (0, 1, 250, 500, 501)]
    logged = 0.0004999951639097535  # after the first epoch, in the released log
    assert np.allclose(rates, [5e-4, logged, 2.55e-4, 1e-5, 1e-5], rtol=1e-12)


def test_visible_frames_and_epochs_of_conmh():
    visible, epochs = {}, {}
    for dataset in ("fcvid", "activitynet", "yfcc"):
        sizes, recipe = published_recipe("conmh", dataset)
        frames = PUBLISHED_SETS[dataset].num_frames
        visible[dataset] = METHODS["conmh"].Config(num_frames=frames, **sizes).num_visible
        epochs[dataset] = recipe["epochs"]
    assert visible == {"fcvid": 7, "activitynet": 15, "yfcc": 7}
    assert epochs == {"fcvid": 800, "activitynet": 500, "yfcc": 40}


def test_a_recipe_is_ones_own_to_change():
    sizes, recipe = published_recipe("mcmsh", "fcvid")
    sizes["hidden_dim"] = recipe["epochs"] = 1
    sizes, recipe = published_recipe("mcmsh", "fcvid")
    assert sizes["hidden_dim"] == 256 and recipe["epochs"] == 56


def test_a_recipe_that_nobody_published():
    with pytest.raises(ValueError, match="'bth' on 'yfcc', only conmh on fcvid"):
        published_recipe("bth", "yfcc")
