"""Several processes train as one: losses, weights, checkpoints; one that dies ends the others."""

import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from vidhash_lab import BTH, CHAIN, MCMSH, S5VH, ConMH, fit, open_dataset, processes
from vidhash_lab.data import FeatureSet
from vidhash_lab.models.blocks import corrupt_
from vidhash_lab.processes import BatchNorm, everyones, mean_of_all

SMALL = {"hidden_dim": 16}
METHODS = {
    "conmh": (ConMH, SMALL | {"depth": 1, "heads": 2, "decoder_dim": 16}),
    "chain": (CHAIN, SMALL | {"clip_frames": 4}),
    "bth": (BTH, SMALL | {"num_anchors": 10, "latent_epochs": 1, "dropout": 0.0}),
    "mcmsh": (MCMSH, {"hidden_dim": 32, "num_anchors": 10, "dropout": 0.0}),
}
RECIPE = {"batch_size": 32, "learning_rate": 1e-3, "precision": "32-true", "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("data") / "a.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["feats"] = rng.normal(size=(160, 8, 12)).astype("f4")
        file["views"] = rng.normal(size=(160, 2, 8, 12)).astype("f4")
    return open_dataset(path)


def trained(data, name, epochs=4, **options):
    method, sizes = METHODS[name]
    model = method.for_dataset(data, bits=16, seed=0, **sizes)
    return model, fit(model, data.train, epochs=epochs, **RECIPE, **options)


def assert_equal(ours, theirs, but=()):
    """Compare weights to 1e-5; `but` those whose true gradient is zero, which Adam blows up."""
    for name, weight in ours.state_dict().items():
        if not name.endswith(but):
            torch.testing.assert_close(weight, theirs.state_dict()[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, count", [*((name, 2) for name in METHODS), ("conmh", 4)])
def test_losses_and_weights_are_those_of_one_process(data, name, count):
    alone, expected = trained(data, name)  # 20 steps
    together, history = trained(data, name, processes=count)
    # The bias of an attention's keys moves no softmax.
    assert_equal(alone, together, but=("linear_layers.1.bias",) if name == "bth" else ())
    for row, other in zip(expected, history, strict=True):
        assert {*row} == {*other} and row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert torch.get_num_threads() >= 1 and "RANK" not in os.environ


IN_A_NOTEBOOK = """
import sys
sys.ps1 = "as a notebook's kernel sets it"
from vidhash_lab import ConMH, fit, open_dataset
data = open_dataset(sys.argv[1])
model = ConMH.for_dataset(data, bits=16, hidden_dim=16, depth=1, heads=2, decoder_dim=16)
print(fit(model, data.train, epochs=1, batch_size=32, device="cpu", processes=2)[0]["loss"])
"""


def test_a_notebook_trains_on_several_processes(data):
    command = [sys.executable, "-c", IN_A_NOTEBOOK, str(data.train.paths[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.isfinite(float(done.stdout))


def test_any_number_of_processes_goes_on_from_a_checkpoint(data, tmp_path):
    whole, _ = trained(data, "conmh")
    trained(data, "conmh", epochs=4, processes=2, checkpoint=tmp_path / "all.pt")
    stopped = tmp_path / "stopped.pt"

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(data, "conmh", processes=2, checkpoint=stopped, on_epoch=stop)
    again, history = trained(data, "conmh", checkpoint=stopped)
    assert len(history) == 4
    assert_equal(whole, again)


def test_a_process_that_is_killed_is_named_and_the_checkpoint_stands(data, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"

    started_ones, start = [], processes._start

    def remember(*arguments):
        started_ones.append(start(*arguments))
        return started_ones[-1]

    monkeypatch.setattr(processes, "_start", remember)

    def kill_the_other(row):
        os.kill(started_ones[0].pid, signal.SIGKILL)

    started = time.monotonic()
    message = r"process 1 of 0 to 1 was killed by signal 9.*checkpoint of the last whole epoch"
    with pytest.raises(RuntimeError, match=message):
        trained(data, "conmh", processes=2, checkpoint=path, on_epoch=kill_the_other)
    assert time.monotonic() - started < 60
    whole, _ = trained(data, "conmh")
    again, history = trained(data, "conmh", checkpoint=path)
    assert len(history) == 4
    assert_equal(whole, again)


SCRIPT = """import sys
import torch
from vidhash_lab import ConMH, fit, open_dataset
data = open_dataset(sys.argv[1])
model = ConMH.for_dataset(data, bits=16, seed=0, hidden_dim=16, depth=1, heads=2, decoder_dim=16)
fit(model, data.train, epochs=4, batch_size=32, learning_rate=1e-3, precision="32-true",
    device="cpu", checkpoint=sys.argv[2])
"""


def test_a_launcher_is_found(data, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "train.py"), str(data.train.paths[0]), str(tmp_path / "run.pt")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, _ = trained(data, "conmh")
    again, history = trained(data, "conmh", checkpoint=tmp_path / "run.pt")
    assert len(history) == 4
    assert_equal(whole, again)


def test_what_cannot_be_shared_is_refused_before_anything_starts(data, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    model = S5VH.for_dataset(data, bits=16, hidden_dim=16, depth=1, num_clusters=5, cluster_dim=4)
    with pytest.raises(ValueError, match="S5VH trains in one process: its `sample` takes no"):
        fit(model, data.train, epochs=1, processes=2, **RECIPE)
    with pytest.raises(ValueError, match="batch_size=32 must be a multiple of processes=3"):
        trained(data, "conmh", processes=3)


def test_a_companion_that_cannot_begin_is_an_error(data):
    class Unreadable(FeatureSet):
        def __reduce__(self):
            return open, ("/nowhere/at/all",)

    train = Unreadable(data.train.paths)
    model = ConMH.for_dataset(data, bits=16, **METHODS["conmh"][1])
    with pytest.raises(RuntimeError, match=r"process 1 of 0 to 1 failed.*No such file"):
        fit(model, train, epochs=1, processes=2, **RECIPE)


def test_alone_everything_is_as_it_was():
    rows = torch.randn(6, 4, requires_grad=True)
    assert everyones(rows) is rows and mean_of_all(rows) is rows
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    torch.testing.assert_close(ours(rows), theirs(rows))
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_shares_of_corruption_are_the_whole(data):
    videos = torch.arange(16).view(2, 8)
    read = data.train.rows(videos.flatten()).unflatten(0, (2, 8))
    whole = corrupt_(read.clone(), 0.5, torch.Generator().manual_seed(0))
    for share in (slice(0, 2), slice(2, 8)):
        draws = torch.Generator().manual_seed(0)
        mine = corrupt_(read[:, share].clone(), 0.5, draws, data.train, videos, share)
        assert torch.equal(mine, whole[:, share])
