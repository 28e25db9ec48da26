"""Training: it learns, it repeats, it resumes bit for bit, it never spoils a checkpoint."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch

from vidhash_lab.checkpoints import load, load_released, save
from vidhash_lab.data import DataError, FeatureSet
from vidhash_lab.models import AutoSSVH, ConMH
from vidhash_lab.models.baselines import LSH
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.training import NonFiniteLoss, StepDecay, fit

SMALL = {"hidden_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 12}
RECIPE = {
    "epochs": 6, "batch_size": 16, "learning_rate": 1e-3, "schedule": "one-cycle", "device": "cpu"
}  # fmt: skip


@pytest.fixture
def train(random_features):
    return FeatureSet(random_features())


VOTING = SMALL | {"num_clusters": (4, 8), "warm_up_epochs": 2}


def new_model(train, seed=0):
    return ConMH.for_dataset(train, 16, seed=seed, **SMALL)


def same_weights(one, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.fixture
def uninterrupted(train):
    model = new_model(train)
    history = fit(model, train, **RECIPE)
    return model, history


def test_loss_falls_and_history_has_every_term(uninterrupted, train):
    _, history = uninterrupted
    assert history[-1]["loss"] < history[0]["loss"]
    assert history.column("epoch") == [1, 2, 3, 4, 5, 6]
    for row in history:
        assert row["loss"] == pytest.approx(row["reconstruction"] + row["contrastive"])
        assert row["videos_per_second"] == pytest.approx(64 / row["seconds"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_model_comes_back_from_the_gpu(train):
    model = new_model(train)
    where = []
    fit(model, train, **RECIPE | {"device": "auto"}, on_epoch=lambda _: where.append(model.device))
    assert {device.type for device in where} == {"cuda"} and model.device.type == "cpu"
    model.encode(train.rows(range(4)))


def test_the_seed_decides_everything(uninterrupted, train):
    torch.manual_seed(99)  # whatever the user did before
    again, other = new_model(train), new_model(train)
    fit(again, train, **RECIPE)
    fit(other, train, **RECIPE, seed=1)
    assert same_weights(again, uninterrupted[0]) and not same_weights(other, uninterrupted[0])


@pytest.mark.parametrize(
    "method, sizes",
    [(ConMH, SMALL), (AutoSSVH, VOTING), (AutoSSVH, VOTING | {"sampler": "random"})],
    ids=["conmh", "autossvh", "autossvh-random"],
)
@pytest.mark.parametrize("interrupted", [1, 3])  # before AutoSSVH's first vote, and after one
def test_an_interrupted_run_resumes_bit_for_bit(train, tmp_path, method, sizes, interrupted):
    path, seen = tmp_path / "run.pt", []

    def new(seed=0):
        return method.for_dataset(train, 16, seed=seed, **sizes)

    def interrupt(row):
        seen.append(row["epoch"])
        if row["epoch"] == interrupted:
            raise KeyboardInterrupt

    uninterrupted = new()
    whole = fit(uninterrupted, train, **RECIPE)
    with pytest.raises(KeyboardInterrupt):
        fit(new(), train, **RECIPE, checkpoint=path, on_epoch=interrupt)
    assert load(path).config.bits == 16  # usable as it is
    resumed = new(seed=5)  # its own weights do not matter
    history = fit(resumed, train, **RECIPE, checkpoint=path, on_epoch=interrupt)
    assert same_weights(resumed, uninterrupted)
    assert seen == [1, 2, 3, 4, 5, 6] and history.column("epoch") == [1, 2, 3, 4, 5, 6]
    assert whole.column("loss") == history.column("loss")


def test_an_interrupt_inside_the_first_epoch_leaves_a_checkpoint(train, tmp_path, monkeypatch):
    path, steps, real_losses = tmp_path / "run.pt", iter(range(2)), ConMH.losses

    def losses(model, batch):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return real_losses(model, batch)

    monkeypatch.setattr(ConMH, "losses", losses)
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(train), train, **RECIPE, checkpoint=path)
    assert isinstance(load(path), ConMH)


KILLED = """
import sys, time
from vidhash_lab.data import FeatureSet
from vidhash_lab.models import ConMH
from vidhash_lab.models.baselines import LSH
from vidhash_lab.training import fit

class Slow(FeatureSet):
    def rows(self, indices):
        time.sleep(0.03)
        return super().rows(indices)

def say(row):
    print(row["epoch"], flush=True)

train = Slow(sys.argv[1])
model = ConMH.for_dataset(train, 16, **{small})
fit(model, train, **{recipe}, checkpoint=sys.argv[2], on_epoch=say)
"""


def test_kill_9_in_the_middle_of_an_epoch(uninterrupted, train, tmp_path):
    path = tmp_path / "run.pt"
    script = KILLED.format(small=SMALL, recipe=RECIPE)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(train.paths[0]), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "1\n" and process.stdout.readline() == "2\n"
    time.sleep(0.05)  # an epoch sleeps 0.12 s in its reads, so this is in the middle of one
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = new_model(train)
    history = fit(resumed, train, **RECIPE, checkpoint=path)
    assert len(history) == 6 and same_weights(resumed, uninterrupted[0])


def test_a_finished_run_is_not_run_again(uninterrupted, train, tmp_path):
    path, model, again = tmp_path / "run.pt", new_model(train), new_model(train, seed=5)
    fit(model, train, **RECIPE, checkpoint=path)
    before = path.stat().st_mtime_ns
    assert len(fit(again, train, **RECIPE, checkpoint=path)) == 6
    assert same_weights(again, model) and path.stat().st_mtime_ns == before
    assert list(tmp_path.glob(".run.pt*")) == []


def test_another_run_s_checkpoint_is_refused_and_kept(train, tmp_path):
    path = tmp_path / "run.pt"
    fit(new_model(train), train, **RECIPE, checkpoint=path)
    kept = path.read_bytes()
    with pytest.raises(DataError, match=r"learning_rate was 0\.001, now 0\.01"):
        fit(new_model(train), train, **RECIPE | {"learning_rate": 1e-2}, checkpoint=path)
    assert path.read_bytes() == kept
    history = fit(new_model(train), train, **RECIPE | {"epochs": 1}, checkpoint=path, resume=False)
    assert len(history) == 1 and path.read_bytes() != kept


def test_a_loss_that_is_not_finite(train, tmp_path, monkeypatch):
    path, model, real_losses = tmp_path / "run.pt", new_model(train), ConMH.losses
    steps = iter(range(6))  # one epoch of four steps, and two more

    def losses(model, batch):
        terms = real_losses(model, batch)
        return (
            terms if next(steps, None) is not None else {n: t * torch.nan for n, t in terms.items()}
        )

    monkeypatch.setattr(ConMH, "losses", losses)
    with pytest.raises(NonFiniteLoss, match=r"epoch 2, step 3.*nan"):
        fit(model, train, **RECIPE, checkpoint=path)
    assert all(p.isfinite().all() for p in model.parameters())
    state = torch.load(path, weights_only=True)
    assert len(json.loads(state["history"])) == 1


@pytest.mark.parametrize("precision, low", [("bf16-mixed", True), ("32-true", False)])
def test_precision_is_that_of_the_steps_and_weights_stay_float32(
    train, monkeypatch, precision, low
):
    seen, real_losses, model = [], ConMH.losses, new_model(train)

    def losses(model, batch):
        seen.append((torch.is_autocast_enabled("cpu"), batch["frames"].dtype))
        return real_losses(model, batch)

    monkeypatch.setattr(ConMH, "losses", losses)
    history = fit(model, train, **RECIPE, precision=precision)
    assert set(seen) == {(low, torch.float32)} and history[-1]["loss"] < history[0]["loss"]
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_the_papers_schedule():
    decay = StepDecay()
    assert [decay(epoch) for epoch in (0, 19, 20, 40)] == pytest.approx([1, 1, 0.9, 0.81])
    assert decay(800) == 0.1 and StepDecay(floor=1 / 3)(800) == 1 / 3


def test_an_unknown_schedule(train):
    with pytest.raises(ValueError, match="one-cycle"):
        fit(new_model(train), train, epochs=1, schedule="cosine")


def test_a_method_without_weights_is_prepared_and_saved(train, tmp_path):
    model = LSH.for_dataset(train, 16)
    history = fit(model, train, seed=1, checkpoint=tmp_path / "lsh.pt")
    assert history == [] and history.prepare_seconds > 0 and "0 epochs" in repr(history)
    prepared = LSH.for_dataset(train, 16).prepare(train, 1)
    assert torch.equal(model.projection, prepared.projection)
    assert same_weights(load(tmp_path / "lsh.pt"), model)


def test_a_method_with_weights_needs_epochs(train):
    with pytest.raises(ValueError, match="epochs is missing"):
        fit(new_model(train), train)


def test_a_model_alone_is_saved_and_loaded(train, tmp_path):
    model = new_model(train)
    save(model, tmp_path / "model.pt")
    loaded = load(tmp_path / "model.pt")
    assert loaded.config == model.config and same_weights(loaded, model) and not loaded.training
    with pytest.raises(DataError, match="no training run to resume"):
        fit(model, train, **RECIPE, checkpoint=tmp_path / "model.pt")


def test_videos_of_another_shape_are_refused(train, random_features):
    other = FeatureSet(random_features("other.h5", (64, 9, 12)))
    for use in (
        lambda: fit(new_model(train), other, epochs=1),
        lambda: encode(new_model(train), other),
    ):
        with pytest.raises(
            ValueError, match=r"built for videos of \(T, D\) = \(10, 12\).*\(9, 12\)"
        ):
            use()


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(DataError, match="refused"):
            load(tmp_path / name)
        with pytest.raises(DataError, match="refused"):
            load_released("conmh", tmp_path / name)
    assert not (tmp_path / "evil").exists()


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load(tmp_path / "none.pt")
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="load_released"):
        load(tmp_path / "other.pt")
    with pytest.raises(DataError, match="not weights of the released conmh"):
        load_released("conmh", tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no released 'lsh' is known"):
        load_released("lsh", tmp_path / "other.pt")
    torch.save({"method": "newer", "config": "{}", "model": {}}, tmp_path / "newer.pt")
    with pytest.raises(DataError, match="of method 'newer', which is not one of"):
        load(tmp_path / "newer.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(DataError, match="holds a Tensor"):
        load(tmp_path / "tensor.pt")


def test_a_run_that_has_no_epoch_yet_goes_on_from_its_own_weights_alone(train, tmp_path):
    path = tmp_path / "run.pt"
    fit(new_model(train), train, **RECIPE | {"epochs": 0}, checkpoint=path)
    other = new_model(train, seed=9)
    with pytest.raises(DataError, match="other initial weights"):
        fit(other, train, **RECIPE | {"epochs": 0}, checkpoint=path)


@pytest.mark.parametrize("name, value", [("epochs", -1), ("epochs", 1.5), ("batch_size", 0)])
def test_odd_numbers_are_refused_before_any_work(train, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; expected a whole number"):
        fit(new_model(train), train, **{"epochs": 1, name: value})


@pytest.mark.parametrize("bits", [0, 12, -8])
def test_bits_that_fill_no_bytes_are_refused_before_training(train, bits):
    with pytest.raises(ValueError, match=f"bits is {bits}; expected a multiple of 8"):
        LSH.for_dataset(train, bits=bits)


def test_other_features_of_the_same_shape_are_refused_and_a_moved_file_is_not(
    random_features, tmp_path
):
    path, run, recipe = random_features(), tmp_path / "run.pt", RECIPE | {"epochs": 2}
    train = FeatureSet(path)
    fit(new_model(train), train, **recipe, checkpoint=run)
    other = FeatureSet(random_features("other.h5", seed=1))
    with pytest.raises(DataError, match="another run \\(data was"):
        fit(new_model(other), other, **recipe, checkpoint=run)
    moved = FeatureSet(path.rename(tmp_path / "moved.h5"))
    assert len(fit(new_model(moved), moved, **recipe, checkpoint=run)) == 2
