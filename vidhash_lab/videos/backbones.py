"""Backbones: networks that describe a frame by D numbers, opened by one name or path.

    "digits"                  the network that comes with the package, 32 x 32 grey
    "torchvision:resnet50"    a model of torchvision with its default weights
    "timm:resnet50"           a model of timm with its pretrained weights
    a folder                  a transformers model of pictures or of clips, with its processor file
    a .pt or .ts file         TorchScript: frames in [0, 1] -> features
    a .onnx file              ONNX: frames in [0, 1] -> features
    any callable              frames in [0, 1] -> features

A name ends in a digest of parameters, file or code, so that one file never holds features of two
backbones. `Backbone(function, name)` names a callable freely; with `window=W` it describes clips of
W frames, with `rows=R` by R rows of features each. A network that describes the same frames twice
otherwise is refused. TorchScript runs the code in its file, in torch's own interpreter, which is no
sandbox: open such files from people you trust. ONNX files and safetensors folders hold no code.

N frames, B clips, W frames of a clip, R rows for a clip, C channels (1 or 3), S pixels a side,
D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vidhash_lab.data.files import DataError
from vidhash_lab.data.stories.network import BACKBONE, FRAME_SIZE, digit_features
from vidhash_lab.videos.digests import digest, file_digest
from vidhash_lab.videos.model_folders import read_model_folder
from vidhash_lab.videos.pictures import Shape

FRAMES_AT_ONCE = 128
TORCHSCRIPT = (".pt", ".pth", ".ts", ".torchscript")


@dataclass(frozen=True)
class Backbone:
    """A function of frames or clips in [0, 1] on `device`, and what it needs.

    Args:
        describe: frames (N, C, S, S) -> (N, D); where `window` is W > 1, clips (B, W, C, S, S) ->
            (B, R, D), or (B, D) for one row.
        name: what feature files call it; two backbones never share one.
        frame_size: S; `resize`, `squeeze`, `interpolation` and `grey` are those of `Shape`.
        window: W, frames of a clip, which follow each other within a stretch of a video.
        rows: R, which divides W: each row is of W / R frames.
        about: plain values that are written down in feature files; another value, another backbone.

    >>> colours = Backbone(lambda frames: frames.mean((2, 3)), "mean colours", frame_size=32)
    >>> colours(np.zeros((5, 32, 32, 3), np.uint8)).shape
    (5, 3)
    """

    describe: Callable[[Tensor], Tensor]
    name: str
    frame_size: int = 224
    resize: int | None = None
    squeeze: bool = False
    interpolation: str = "bicubic"
    grey: bool = False
    window: int = 1
    rows: int = 1
    device: torch.device | str = "cpu"
    about: Mapping = field(default_factory=dict)

    def __post_init__(self):
        if self.window < 1 or self.rows < 1 or self.window % self.rows:
            raise ValueError(f"rows={self.rows} must divide window={self.window}, both from 1 on")

    @property
    def shape(self) -> Shape:
        """What its frames look like."""
        return Shape(self.frame_size, self.resize, self.squeeze, self.grey, self.interpolation)

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Describe frames (N, S, S, C) uint8 -> (N R / W, D) float32, or raise `DataError`."""
        parts, clips = [], max(1, FRAMES_AT_ONCE // self.window)
        for part in torch.from_numpy(frames).split(clips * self.window):
            part = part.to(self.device).permute(0, 3, 1, 2).float().div_(255)
            if self.window > 1:
                part = part.unflatten(0, (-1, self.window))
            parts.append(self._rows(torch.as_tensor(self.describe(part)), len(part)))
        return torch.cat(parts).numpy()

    def _rows(self, found, count):
        given = tuple(found.shape)
        if self.rows > 1 and found.ndim == 3 and given[:2] == (count, self.rows):
            found = found.flatten(0, 1)
        elif self.rows > 1 or found.ndim < 2 or found.flatten(1).shape != (count, given[1]):
            what = "frames" if self.window == 1 else "clips"
            rows = f" {self.rows}," if self.rows > 1 else ""
            raise DataError(
                f"backbone {self.name}: gave {given} for {count} {what}; expected (N,{rows} D), "
                f"{self.rows} row{'s' * (self.rows > 1)} of features for each."
            )
        return found.flatten(1).float().cpu()


def open_backbone(
    which: str | Path | Backbone | Callable, device: str = "auto", output: str | None = None
) -> Backbone:
    """Open a backbone by name, by path, or around a callable; see above. A `Backbone` stays.

    Networks run on `device`, "auto" for the best there is. `output` chooses what is taken of a
    transformers model, see `vidhash_lab.videos.model_folders`; None for what it is made for.
    `DataError` where a library or weights are missing says what to fetch. Only weights of
    torchvision or timm are ever downloaded.

    >>> open_backbone("digits").frame_size
    32
    """
    path = Path(which) if isinstance(which, str | Path) else None
    if output is not None and not (path and path.is_dir()):
        raise ValueError(f"output={output!r}: only the folder of a transformers model has outputs")
    if isinstance(which, Backbone):
        return which
    if callable(which):
        name = getattr(which, "__qualname__", type(which).__name__)
        return Backbone(which, f"{name} {digest(which)}")
    if which == "digits":
        # "box" undoes what enlarged a built-in picture to a film: the network sees what it learned.
        shape = {"frame_size": FRAME_SIZE, "interpolation": "box", "grey": True}
        return Backbone(lambda x: digit_features(x.transpose(0, 1).cpu())[0], BACKBONE, **shape)
    from lightning_fabric import Fabric  # takes a second to import

    device = Fabric(accelerator=device, devices=1).device
    library, _, model = str(which).partition(":")
    if library in ("torchvision", "timm") and model:
        return _tried({"torchvision": _torchvision, "timm": _timm}[library](model, device))
    if not path.exists():
        names = "'digits', 'torchvision:MODEL' and 'timm:MODEL'"
        raise DataError(f"backbone {which}: no such file or folder, and no name as {names} are.")
    if path.is_dir():
        return Backbone(**read_model_folder(path, _library("transformers"), device, output))
    if path.suffix == ".onnx":
        return _tried(_onnx(path))
    if path.suffix in TORCHSCRIPT:
        return _tried(_torchscript(path, device))
    raise DataError(f"{path}: a backbone file ends in .onnx, {', '.join(TORCHSCRIPT)}.")


def travelling(which: str | Path | Backbone | Callable, opened: Backbone) -> str | Path | Backbone:
    """Return what another process opens as the same backbone: a name or whole path, if it has one.

    A callable travels itself, opened and named here.

    >>> travelling("digits", open_backbone("digits"))
    'digits'
    """
    if not isinstance(which, str | Path):
        return opened
    return Path(which).absolute() if which != "digits" and Path(which).exists() else which


def _tried(backbone):
    """Return a network that describes two frames twice alike; else raise `DataError`."""
    sides = 2, backbone.frame_size, backbone.frame_size, 1 if backbone.grey else 3
    frames = np.random.default_rng(0).integers(0, 256, sides, dtype=np.uint8)
    try:
        once, again = backbone(frames), backbone(frames)
    except DataError:
        raise
    except Exception as error:  # of torch's interpreter, of onnxruntime
        why = " ".join(f"{type(error).__name__}: {error}".split())[-300:]
        raise DataError(
            f"backbone {backbone.name}: cannot describe frames {sides} ({why}). If it wants "
            "others, say so: Backbone(function, name, frame_size=…)."
        ) from error
    if not np.allclose(once, again, rtol=1e-4, atol=1e-5):
        raise DataError(
            f"backbone {backbone.name}: gives other features of the same frames each time. Was it "
            "saved in training mode, with its dropout? Save it after .eval()."
        )
    return backbone


def _library(name):
    try:
        return import_module(name)
    except Exception as error:  # an installation that does not fit torch fails in many ways
        problem = f"{name} cannot be imported ({type(error).__name__}: {error})"
        raise DataError(f"backbone: {problem}. Install it: pip install {name}") from error


def _network(make, which, device):
    """Build a network whose weights may have to be downloaded, or say that they could not be."""
    try:
        network = make()
    except (OSError, RuntimeError, ValueError) as error:  # URLError is an OSError
        raise DataError(
            f"backbone {which}: its weights could not be downloaded, or do not fit "
            f"({type(error).__name__}: {error}). Copy the library's cache folder from a machine "
            "with a network, or give a local file or folder."
        ) from error
    return network.eval().requires_grad_(False).to(device)


def _normalising(describe, mean, std, device, **about):
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
    return Backbone(lambda frames: describe((frames - mean) / std), device=device, **about)


def _torchvision(model, device):
    models = _library("torchvision").models
    if model not in models.list_models(module=models):
        raise DataError(f"backbone torchvision:{model}: torchvision has no such model.")
    weights = models.get_model_weights(model).DEFAULT
    name = f"torchvision:{model} {weights}"
    network = _network(lambda: models.get_model(model, weights=weights), name, device)
    name = f"{name} {digest(network.state_dict())}"
    # The last linear layer tells categories apart: take it off.
    last = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    parent, _, child = last.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    look = weights.transforms()
    about = {"name": name, "frame_size": look.crop_size[0], "resize": look.resize_size[0]}
    about["interpolation"] = look.interpolation.value
    return _normalising(network, look.mean, look.std, device, **about)


def _timm(model, device):
    timm, name = _library("timm"), f"timm:{model}"
    if not timm.is_model(model):
        raise DataError(f"backbone {name}: timm has no such model.")
    make = partial(timm.create_model, model, pretrained=True, num_classes=0)
    network = _network(make, name, device)
    look = timm.data.resolve_data_config({}, model=network)
    size = look["input_size"][-1]
    about = {"frame_size": size, "resize": int(size / look["crop_pct"])}
    about |= {"squeeze": look.get("crop_mode") == "squash", "interpolation": look["interpolation"]}
    about["name"] = f"{name} {digest(network.state_dict())}"
    return _normalising(network, look["mean"], look["std"], device, **about)


def _torchscript(path, device):
    try:
        network = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        hint = "Write one with torch.jit.script or trace and save; weights alone are not enough."
        raise DataError(f"{path}: no TorchScript file ({first}). {hint}") from error
    return Backbone(network, f"{path.name} {file_digest(path)}", device=device)


def _onnx(path):
    onnxruntime = _library("onnxruntime")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class of their own
        raise DataError(f"{path}: no ONNX network ({error}).") from error
    entry = session.get_inputs()[0]
    size, grey = entry.shape[-1], entry.shape[1] == 1

    def describe(frames):
        return torch.from_numpy(session.run(None, {entry.name: frames.numpy()})[0])

    name, size = f"{path.name} {file_digest(path)}", size if isinstance(size, int) else 224
    return Backbone(describe, name, size, grey=grey)
