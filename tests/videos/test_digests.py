"""Digests: equal for what does the same, another one for other parameters, code and values."""

import subprocess
import sys
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vidhash_lab.data.files import DataError
from vidhash_lab.videos.backbones import Backbone, open_backbone
from vidhash_lab.videos.digests import digest


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())


def around(inner, scale=1.0):
    return lambda frames: inner(frames) * scale


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, frames):
        return frames.mean((2, 3)) * self.scale


class Unknown(Scaled):
    def __reduce_ex__(self, protocol):
        raise TypeError("has no state to store")


@torch.no_grad()
def without_gradients(frames):
    return frames.mean((2, 3))


@torch.no_grad()
def without_gradients_either(frames):
    return frames.amax((2, 3))


WEIGHTS = torch.ones(3)


def weighted(frames):
    return weigh(frames.mean((2, 3)))


def weigh(means):
    return means * WEIGHTS


def test_networks_are_known_by_their_parameters():
    assert digest(network(0)) == digest(network(0)) != digest(network(1))
    other = network(0)
    other[1].running_mean += 1e-6
    assert digest(other) != digest(network(0))
    half = network(0).bfloat16()
    assert digest(half) not in (digest(half.float()), digest(network(0)))


def test_functions_are_known_by_their_code_and_what_they_refer_to(monkeypatch):
    known = [
        digest(each)
        for each in (
            *(
                lambda x: x.mean((2, 3)),
                lambda x: x.amax((2, 3)),
                lambda x: x.mean((2, 3)) in {"a"},
            ),
            *(around(network(0)), around(network(1)), around(network(0), 2.0)),
            *(partial(around, network(0)), network(0).forward, weighted, torch.mean),
            *(
                around(np.arange(3)),
                without_gradients,
                without_gradients_either,
                Scaled(2),
                Scaled(np.array(3)),
                around(np.arange(4)),
                around([1, {"a": 2}]),
                around(np.mean),
                around(np.exp),
            ),
        )
    ]
    assert len(set(known)) == len(known)
    assert digest(around(network(0))) == known[3]
    monkeypatch.setitem(globals(), "WEIGHTS", torch.tensor([1, 1, 2.0]))
    assert digest(weighted) != known[8]


def test_a_network_of_the_same_parameters_and_another_forward():
    first, second = (type("Net", (nn.Flatten,), {"forward": f}) for f in (weighted, weigh))
    assert digest(first()) != digest(second())


def test_another_process_gives_the_same_digest(tmp_path):
    code = (
        "f = lambda x: x.mean() if x in {'a', 'b', 'c'} else abs(x)\n"
        "from vidhash_lab.videos.digests import digest\n"
        "print(digest(f))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(found) == 1


def test_what_has_no_digest_needs_a_name():
    means = Unknown(2)
    for each in (means, means.__call__, around(means), around(lru_cache(weigh))):
        with pytest.raises(
            DataError, match=r"no digest can be taken.*Backbone\(function, 'a name'"
        ):
            open_backbone(each)
    assert open_backbone(Backbone(means, "means")).name == "means"
