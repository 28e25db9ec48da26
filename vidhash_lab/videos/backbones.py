"""Backbones: networks that describe a frame by D numbers, opened by one name or path.

    "digits"                  the network that comes with the package, 32 x 32 grey
    "torchvision:resnet50"    a model of torchvision with its default weights
    "timm:resnet50"           a model of timm with its pretrained weights
    a folder                  a transformers vision model: config.json, model.safetensors
    a .pt or .ts file         TorchScript: frames in [0, 1] -> features
    a .onnx file              ONNX: frames in [0, 1] -> features
    any callable              frames in [0, 1] -> features

A name ends in a digest of parameters, file or code, so that one file never holds features of two
backbones. `Backbone(function, name)` names a callable freely. TorchScript runs the code in its
file, in torch's own interpreter, which is no sandbox: open such files from people you trust. ONNX
files and safetensors folders hold no code.

N frames, C channels (1 or 3), S pixels a side, D features.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vidhash_lab.data.files import DataError
from vidhash_lab.data.stories.network import BACKBONE, FRAME_SIZE, digit_features
from vidhash_lab.videos.digests import digest, file_digest

FRAMES_AT_ONCE = 128
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHSCRIPT = (".pt", ".pth", ".ts", ".torchscript")


@dataclass(frozen=True)
class Backbone:
    """A function of frames (N, C, S, S) in [0, 1] on `device` -> (N, D), and what it needs."""

    describe: Callable[[Tensor], Tensor]
    name: str
    frame_size: int = 224
    kept: float = 1.0  # the share of a picture's shorter side that is shown to it
    grey: bool = False
    device: torch.device | str = "cpu"

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Describe frames (N, S, S, C) uint8 -> (N, D) float32, or raise `DataError`."""
        parts = []
        for part in torch.from_numpy(frames).split(FRAMES_AT_ONCE):
            part = part.to(self.device).permute(0, 3, 1, 2).float().div_(255)
            found = torch.as_tensor(self.describe(part))
            if found.ndim < 2 or found.flatten(1).shape != (len(part), found.shape[1]):
                raise DataError(
                    f"backbone {self.name}: gave {tuple(found.shape)} for {len(part)} frames; "
                    "expected (N, D), one row of features for each."
                )
            parts.append(found.flatten(1).float().cpu())
        return torch.cat(parts).numpy()


def open_backbone(which: str | Path | Backbone | Callable, device: str = "auto") -> Backbone:
    """Open a backbone by name, by path, or around a callable; see above. A `Backbone` stays.

    Networks run on `device`, "auto" for the best there is. `DataError` where a library or weights
    are missing says what to fetch. Only weights of torchvision or timm are ever downloaded.
    """
    if isinstance(which, Backbone):
        return which
    if callable(which):
        name = getattr(which, "__qualname__", type(which).__name__)
        return Backbone(which, f"{name} {digest(which)}")
    if which == "digits":
        return Backbone(
            lambda x: digit_features(x.transpose(0, 1).cpu())[0], BACKBONE, FRAME_SIZE, grey=True
        )
    from lightning_fabric import Fabric  # takes a second to import

    device = Fabric(accelerator=device, devices=1).device
    library, _, model = str(which).partition(":")
    if library in ("torchvision", "timm") and model:
        return {"torchvision": _torchvision, "timm": _timm}[library](model, device)
    path = Path(which)
    if not path.exists():
        names = "'digits', 'torchvision:MODEL' and 'timm:MODEL'"
        raise DataError(f"backbone {which}: no such file or folder, and no name as {names} are.")
    if path.is_dir():
        return _transformers(path, device)
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix in TORCHSCRIPT:
        return _torchscript(path, device)
    raise DataError(f"{path}: a backbone file ends in .onnx, {', '.join(TORCHSCRIPT)}.")


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
    size = look.crop_size[0]
    about = {"name": name, "frame_size": size, "kept": size / look.resize_size[0]}
    return _normalising(network, look.mean, look.std, device, **about)


def _timm(model, device):
    timm, name = _library("timm"), f"timm:{model}"
    if not timm.is_model(model):
        raise DataError(f"backbone {name}: timm has no such model.")
    make = partial(timm.create_model, model, pretrained=True, num_classes=0)
    network = _network(make, name, device)
    look = timm.data.resolve_data_config({}, model=network)
    about = {"frame_size": look["input_size"][-1], "kept": look["crop_pct"]}
    about["name"] = f"{name} {digest(network.state_dict())}"
    return _normalising(network, look["mean"], look["std"], device, **about)


def _transformers(folder, device):
    config = folder / "config.json"
    if not config.is_file():
        raise DataError(f"{folder}: no config.json; a transformers model has one.")
    load = _library("transformers").AutoModel.from_pretrained
    safe = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    model = _network(partial(load, folder, **safe), folder, device)

    def describe(frames):
        found = model(pixel_values=frames)
        pooled = getattr(found, "pooler_output", None)
        return found.last_hidden_state.mean(1) if pooled is None else pooled

    look = folder / "preprocessor_config.json"
    look = json.loads(look.read_text()) if look.is_file() else {}
    mean, std = look.get("image_mean", IMAGENET_MEAN), look.get("image_std", IMAGENET_STD)
    known_by = config.read_bytes(), model.state_dict(), mean, std
    name = f"transformers:{folder.name} {digest(known_by)}"
    size = getattr(model.config, "image_size", None) or 224
    return _normalising(describe, mean, std, device, name=name, frame_size=size)


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
