"""Checkpoints: a training run that resumes bit for bit, a model alone, the released files.

Files are written to a temporary name and renamed, so a reader finds a whole one or none; their
checksums are compared before anything is read. Nothing is ever unpickled but tensors and plain
values (`weights_only=True`).
"""

import contextlib
import inspect
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vidhash_lab.data.cards import write_card
from vidhash_lab.data.files import DataError, written_whole
from vidhash_lab.models import METHODS
from vidhash_lab.models.hasher import VideoHasher
from vidhash_lab.processes import gathered, number_of, rank
from vidhash_lab.retrieval.metrics import Evaluation


class History(list):
    """One dict an epoch: epoch, every loss term, their sum, seconds, threads, videos a second.

    `prepare_seconds` is what came before the first epoch, or all the training of a method without
    weights. What `prepare` found kept counts as long as it took when it was found. `recipe` is what
    the training was called with, and the fingerprint of its data.

    >>> history = History([{"epoch": 1, "loss": 2.5, "seconds": 3.0}], prepare_seconds=1.5)
    >>> history
    History(1 epochs, prepared in 1.5 s)
    >>> history[-1]["loss"]
    2.5
    """

    def __init__(
        self,
        epochs: Iterable[dict] = (),
        prepare_seconds: float = 0.0,
        recipe: Mapping | None = None,
    ):
        super().__init__(epochs)
        self.prepare_seconds, self.recipe = prepare_seconds, dict(recipe or {})

    def __repr__(self):
        return f"History({len(self)} epochs, prepared in {self.prepare_seconds:.1f} s)"

    def column(self, name: str) -> list:
        """Return one entry of every epoch, for plotting.

        >>> History([{"loss": 2.5}, {"loss": 2.0}]).column("loss")
        [2.5, 2.0]
        """
        return [row[name] for row in self]

    @property
    def seconds(self) -> float:
        """What the whole training took, `prepare` included.

        >>> History([{"seconds": 3.0}, {"seconds": 2.0}], prepare_seconds=1.5).seconds
        6.5
        """
        return self.prepare_seconds + sum(self.column("seconds"))


@dataclass
class Run:
    """Everything that a training run must not lose.

    >>> from vidhash_lab import ConMH
    >>> model = ConMH(ConMH.Config(16, 5, 8, hidden_dim=8, depth=1, heads=2, decoder_dim=8))
    >>> adam = torch.optim.Adam(model.parameters())
    >>> scheduler = torch.optim.lr_scheduler.ConstantLR(adam)
    >>> run = Run(model, adam, scheduler, torch.Generator(), {"epochs": 1}, History())
    >>> run.write("run.pt")
    >>> run.restore("run.pt")
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator  # order of videos, masks, augmentation
    recipe: dict
    history: History

    def write(self, path):
        """Write the state after an epoch to `path`, whole or not at all.

        Where several processes train, all call it, and the first writes.
        """
        random = {"draws": self.generator.get_state()}
        random |= {kind: gathered(state) for kind, state in self._dropout_states().items()}
        if rank() > 0:
            return
        state = _model_state(self.model) | {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": random,
            "recipe": json.dumps(self.recipe),
            "history": json.dumps(self.history),
            "prepare_seconds": self.history.prepare_seconds,
        }
        _write(state, path)

    def _dropout_states(self):
        states = {"torch": torch.get_rng_state()}
        if self.model.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.model.device)
        return states

    def _set_dropout(self, random):
        """Go on with each process's own draws, where there are as many as there were."""
        for kind, put in (("torch", torch.set_rng_state), ("cuda", torch.cuda.set_rng_state)):
            if kind not in random or (kind == "cuda" and self.model.device.type != "cuda"):
                continue
            states = random[kind] if random[kind].ndim == 2 else random[kind][None]  # of 0.1.0
            if len(states) == number_of():
                put(states[rank()])

    def restore(self, path):
        """Continue from a checkpoint of the same model, data and recipe."""
        state = _read(path)
        if "recipe" not in state:
            raise DataError(f"{path}: holds a model, but no training run to resume.")
        with _refused_with(f"{path}: a damaged checkpoint. Remove it to begin anew"):
            ours = self.recipe | {"config": asdict(self.model.config)}
            ours = json.loads(json.dumps(ours | {"method": method_name(type(self.model))}))
            theirs = json.loads(state["recipe"]) | {"config": json.loads(state["config"])}
            theirs |= {"method": state["method"]}
            both = {name: (theirs.get(name), value) for name, value in ours.items()}
            odd = [
                f"{name} was {old}, now {new}" for name, (old, new) in both.items() if new != old
            ]
            if odd:
                raise DataError(
                    f"{path}: is of another run ({'; '.join(odd)}). Use the same settings, another "
                    "checkpoint file, or resume=False to begin anew."
                )
            history = json.loads(state["history"])
            if not history and not _same(self.model.state_dict(), state["model"]):
                raise DataError(
                    f"{path}: was begun from other initial weights, and no epoch is done. Use the "
                    "same seed for them, another file, or resume=False to begin anew."
                )
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.generator.set_state(state["random"]["draws"])
            self._set_dropout(state["random"])
            self.history.prepare_seconds = float(state["prepare_seconds"])
        self.history[:] = history


def save(
    model: VideoHasher,
    path: str | Path,
    *,
    history: History | None = None,
    evaluation: Evaluation | None = None,
) -> None:
    """Write a model's method, config and weights to `path`, to be read by `load`.

    A card beside it, `….card.md` and `.json`, says on a page what the model is; with the `history`
    that `fit` returned also its recipe, its data and its losses, with an `evaluation` its mAP.

    >>> from vidhash_lab import LSH
    >>> save(LSH(LSH.Config(bits=16, num_frames=25, feature_dim=128)), "lsh.pt")
    """
    _write(_model_state(model), path)
    weights = sum(weight.numel() for weight in model.parameters())
    facts = {"method": method_name(type(model)), "weights": weights}
    facts["config"] = asdict(model.config)
    if history is not None:
        facts["recipe"] = history.recipe
        facts["training"] = {"epochs": len(history), "seconds in all": history.seconds}
        facts["history"] = {f"epoch {row['epoch']}": row for row in history}
    if evaluation is None:
        facts["measured"] = {"mAP": "not told"}
    else:
        found = {f"mAP@{k}": value for k, value in evaluation.map_at.items()}
        facts["measured"] = found | {"protocol": evaluation.protocol}
    write_card(path, f"{type(model).__name__}, {model.config.bits} bits", facts)


def load(path: str | Path, method: type[VideoHasher] | None = None) -> VideoHasher:
    """Read a model that `save` or a checkpoint of `fit` wrote -> the model, in evaluation mode.

    A method of your own is named by its class, `load(path, method=MyHasher)`. Raises
    FileNotFoundError, and `DataError` for another method, damage, or more than tensors and values.

    >>> from vidhash_lab import LSH
    >>> save(LSH(LSH.Config(bits=16, num_frames=25, feature_dim=128)), "lsh.pt")
    >>> load("lsh.pt").config.bits
    16
    """
    state = _read(path)
    if not {"method", "config", "model"} <= set(state):
        raise DataError(
            f"{path}: not a checkpoint of this kit (it holds {sorted(state)[:5]}). For one of the "
            "released implementations use load_released(method, path)."
        )
    name = str(state["method"])
    if method is None and name not in METHODS:
        raise DataError(
            f"{path}: of method {name!r}, which is not one of {list(METHODS)}. If it is your own, "
            "say load(path, method=…) with its class."
        )
    if method is not None and name != method_name(method):
        raise DataError(f"{path}: of method {name!r}, not of {method_name(method)!r}.")
    method = method or METHODS[name]
    with _refused_with(f"{path}: a damaged checkpoint"):
        config = json.loads(state["config"])
        _check_plausible(config, state["model"])
        model = method(method.Config(**config))
        model.load_state_dict(_real(state["model"], path))
    return model.eval()


def _check_plausible(config, weights):
    """Refuse a config whose sizes ask for a far larger model than there are weights for."""
    most = {True: len(weights), False: max(100_000, sum(w.numel() for w in weights.values()))}
    for name, value in config.items():
        is_size = name.endswith(("bits", "dim", "frames", "depth", "heads"))
        if is_size and isinstance(value, int) and value > most[name.endswith("depth")]:
            raise ValueError(f"{name} is {value}, and the file holds {len(weights)} tensors")


def method_name(method: type[VideoHasher]) -> str:
    """Name a method as checkpoints do: its name in `METHODS`, or the class name of your own.

    >>> from vidhash_lab import ConMH
    >>> method_name(ConMH)
    'conmh'
    """
    return next((name for name, known in METHODS.items() if known is method), method.__qualname__)


def load_released(method: str, path: str | Path, **assumed) -> VideoHasher:
    """Read a checkpoint of a method's released implementation -> the model, in evaluation mode.

    `method` is "conmh", "mcmsh", "bth", "s5vh" or "autossvh"; `assumed` is what the file does
    not hold, see the class's `from_released`. Raises ValueError for another method,
    FileNotFoundError, and `DataError` for other weights.

    >>> model = load_released("conmh", "fcv_64.pth", num_frames=25)  # doctest: +SKIP
    """
    builders = {
        n: each.from_released for n, each in METHODS.items() if hasattr(each, "from_released")
    }
    if method not in builders:
        raise ValueError(f"no released {method!r} is known, only {', '.join(builders)}")
    inspect.signature(builders[method]).bind(None, **assumed)  # a misspelt name is a TypeError
    state = _read(path)
    with _refused_with(f"{path}: not weights of the released {method}"):
        state = state.get("model_state_dict", state)
        state = {str(key).removeprefix("module."): value for key, value in state.items()}
        return builders[method](_real(state, path), **assumed).eval()


@contextlib.contextmanager
def _refused_with(message):
    """Turn whatever a file's odd contents raise, a missing key or a wrong shape, into DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())  # torch's are of many lines
        raise DataError(f"{message} ({why})") from error


def _real(state, path):
    """Return the state if its weights are real; torch would drop imaginary parts with a warning."""
    for key, value in state.items():
        if torch.is_tensor(value) and value.is_complex():
            raise DataError(f"{path}: `{key}` is {value.dtype}; expected real numbers.")
    return state


def _same(state, other):
    equal = (torch.equal(state[key].cpu(), other[key]) for key in state)
    return state.keys() == other.keys() and all(equal)


def _model_state(model):
    config = json.dumps(asdict(model.config))
    return {"method": method_name(type(model)), "config": config, "model": model.state_dict()}


def _write(state, path):
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _read(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint.")
    try:
        if zipfile.is_zipfile(path):  # torch writes a checksum of every part and reads none
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
            if damaged:
                raise DataError(f"{path}: damaged, the checksum of {damaged} is another one.")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"{path}: not a checkpoint that can be read safely ({why}). It may be cut short, or "
            "hold more than tensors: such a file could run code, so it is refused."
        ) from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: holds a {type(state).__name__}, not a dict of weights.")
    return state
