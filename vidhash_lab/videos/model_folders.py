"""Backbones of transformers from their folders: the weights, the pictures, the output of a model.

A folder opens only if it holds every weight that the features depend on; a layer whose weights lie
there under other names would keep random values, and transformers only warns. What a frame looks
like to the model (size, crop, interpolation, mean, deviation) is read from the folder's own
processor files, and compared on a picture with what transformers' processor makes of it.

    "projection"  image features of a dual tower (CLIP, SigLIP), in the space of its texts
    "pooled"      what the model itself makes of a picture, where its file has the weights for it
    "class"       the class token of the last layer
    "patches"     the mean of the last layer's patches, of a clip those of all its moments

N frames or clips, W frames of a clip, C channels, S pixels a side, D features.
"""

import inspect
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vidhash_lab.data.files import DataError
from vidhash_lab.videos.digests import digest
from vidhash_lab.videos.pictures import INTERPOLATIONS, Shape

OUTPUTS = ("projection", "pooled", "class", "patches")  # the first that a model has is its habit
LOOKS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
# Counters, and numbers that follow from the config: features do not depend on a file having them.
NO_WEIGHTS = ("position_ids", "num_batches_tracked")
NO_SETTINGS = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


def read_model_folder(
    folder: Path, transformers: ModuleType, device: torch.device, output: str | None = None
) -> dict:
    """Read a model's folder -> the fields of a `Backbone`; `DataError` says why it is refused.

    `output` is one of `OUTPUTS`; ValueError for another word.

    >>> import types
    >>> read_model_folder(Path("no folder"), types.ModuleType("transformers"), torch.device("cpu"))
    Traceback (most recent call last):
    vidhash_lab.data.files.DataError: no folder: ...
    """
    if output not in (None, *OUTPUTS):
        raise ValueError(f"output={output!r} must be one of {', '.join(OUTPUTS)}")
    config = _json(folder / "config.json")
    if not config:
        raise DataError(f"{folder}: no config.json; a transformers model has one.")
    _refuse_code(folder)
    network, keys = _load(folder, transformers)
    view = _View(network)
    shape, mean, std = _look(folder, transformers, is_clip=view.window > 1)
    view.output = _choose_output(folder, view, shape.size, keys, output)
    random = {*keys["missing"], *keys["mismatched"]}  # what is left of these, nothing depends on
    weights = digest({k: v for k, v in network.state_dict().items() if k not in random})
    settings = {k: v for k, v in network.config.to_dict().items() if k not in NO_SETTINGS}
    settings = json.dumps(settings, sort_keys=True, default=str)
    about = {"weights": weights, "config": digest(settings)}
    about |= {"output": view.output, "mean": mean, "std": std}
    network.requires_grad_(False).to(device)
    middle, spread = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (mean, std))
    pictures = {"resize": shape.resize, "squeeze": shape.squeeze}
    pictures |= {"frame_size": shape.size, "interpolation": shape.interpolation}
    return pictures | {
        "describe": lambda frames: view((frames - middle) / spread),
        "name": f"transformers:{folder.name} {weights}",
        "window": view.window,
        "device": device,
        "about": about,
    }


def _json(path):
    try:
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"{path}: damaged, it is no JSON ({error}).") from error


def _words(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def _refuse_code(folder):
    for name in ("config.json", *LOOKS):
        if "auto_map" in json.dumps(_json(folder / name)):
            raise DataError(
                f"{folder / name}: wants Python code of its folder to be run (`auto_map`), which "
                "could do anything, so it is refused. Take a folder of a kind that transformers "
                "knows itself, or run the model yourself: Backbone(function, name)."
            )
    if (folder / "adapter_config.json").exists():
        raise DataError(f"{folder}: an adapter of another model. Merge the two and save the whole.")


def _load(folder, transformers):
    """Load a network in float32 -> network, {"missing", "mismatched", "unexpected": its keys}."""
    safe = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    how = {"output_loading_info": True, "dtype": torch.float32}
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    try:
        logging.set_verbosity_error()  # what it would warn of is an error here, or no matter
        network, found = transformers.AutoModel.from_pretrained(folder, **safe, **how)
    except Exception as error:  # transformers and safetensors raise errors of many classes
        raise DataError(
            f"{folder}: no model that can be opened ({_words(error)}). It needs a config.json of a "
            "kind that transformers knows, and its weights as safetensors; pickles are never read."
        ) from error
    finally:
        logging.set_verbosity(before)
    kinds = "missing", "mismatched", "unexpected"
    # A mismatched key comes with the two shapes.
    names = {kind: found.get(f"{kind}_keys") or () for kind in kinds}
    names = {k: sorted(n if isinstance(n, str) else n[0] for n in v) for k, v in names.items()}
    return network.eval(), names


class _View:
    """How a network sees frames (N, C, S, S), or clips (N, W, C, S, S), in the way `output`."""

    def __init__(self, network: nn.Module):
        config, self.network, self.output = network.config, network, None
        self._is_dual = hasattr(network, "get_image_features")
        frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
        self.window = frames if isinstance(frames, int) and not self._is_dual else 1
        names = {name.rpartition(".")[2] for name, _ in network.named_parameters()}
        self._has_class = not names.isdisjoint(CLASS_TOKENS)
        registers = getattr(config, "num_register_tokens", None) or 0
        self._extra = self._has_class + ("distillation_token" in names) + registers

    def __call__(self, frames: Tensor) -> Tensor:
        return self.outputs(frames, self.output)[self.output]

    def outputs(self, frames: Tensor, only: str | None = None) -> dict[str, Tensor]:
        """Describe frames in every way that the network has, or `only` one -> {way: (N, D)}."""
        found, network = {}, self.network
        if self._is_dual and only in (None, "projection"):
            features = network.get_image_features(pixel_values=frames)
            found["projection"] = getattr(features, "pooler_output", features)
        if only == "projection":
            return found
        network = getattr(network, "vision_model", network)
        last = network(**{network.main_input_name: frames}, **_no_guessing(network))
        if getattr(last, "pooler_output", None) is not None:
            found["pooled"] = last.pooler_output.flatten(1)
        states = last.last_hidden_state
        if states.ndim == 4:  # of a convolutional network, (N, D, h, w)
            return found | {"patches": states.mean((2, 3))}
        if self._has_class:
            found["class"] = states[:, 0]
        return found | {"patches": states[:, self._extra :].mean(1)}


def _no_guessing(network):
    """Leave out the second half of V-JEPA 2, which guesses what was not shown."""
    arguments = inspect.signature(network.forward).parameters
    return {"skip_predictor": True} if "skip_predictor" in arguments else {}


def _choose_output(folder, view, size, keys, asked):
    """Choose the output that was asked for, or the model's habit, if its weights are all there."""
    shape = (1, view.window, 3, size, size) if view.window > 1 else (1, 3, size, size)
    frames = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    absent = {*keys["missing"], *keys["mismatched"]}
    absent = {name for name in absent if not name.endswith(NO_WEIGHTS)}
    try:
        with torch.set_grad_enabled(bool(absent)):  # gradients tell which weights are used
            ways = view.outputs(frames)
        with torch.no_grad():
            again = view.outputs(frames)
    except Exception as error:  # a network of texts, sounds, or pictures of another size
        what = f"a {type(view.network).__name__}, which cannot describe frames {shape}"
        hint = "If it can otherwise, run it yourself: Backbone(function, name)."
        raise DataError(f"{folder}: {what} ({_words(error)}). {hint}") from error
    if asked and asked not in ways:
        raise DataError(f"{folder}: has no output {asked!r}, only {', '.join(ways)}.")
    lost = {way: _lost(view.network, features, absent) for way, features in ways.items()}
    order = [asked] if asked else [way for way in OUTPUTS if way in ways]
    chosen = next((way for way in order if not lost[way]), None)
    if chosen is None:
        raise DataError(
            f"{folder}: its weights do not fit: {_some(lost[order[-1]])} missing, so these layers "
            f"would be random; not needed are {_some(keys['unexpected'])}. Were the weights saved "
            "by another library, or under a prefix? Save the model with save_pretrained."
        )
    if not torch.allclose(ways[chosen], again[chosen], rtol=1e-4, atol=1e-5):
        raise DataError(
            f"{folder}: a {type(view.network).__name__} gives other features of the same frames "
            "each time: it draws random numbers, as masked autoencoders do."
        )
    return chosen


def _lost(network, features, absent):
    """List those of the `absent` weights that features (N, D) depend on."""
    weights = {name: weight for name, weight in network.named_parameters() if name in absent}
    if not weights:
        return sorted(absent)  # buffers, if any
    gradients = torch.autograd.grad(
        features.sum(), list(weights.values()), allow_unused=True, retain_graph=True
    )
    used = {name for name, gradient in zip(weights, gradients) if gradient is not None}
    return sorted(used | (absent - weights.keys()))


def _some(names):
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none") + more


def _look(folder, transformers, is_clip):
    """Read what frames must look like -> `Shape`, mean and deviation (3,)."""
    processor, rules, why = None, _rules(folder, is_clip), ""
    if not rules:
        raise DataError(
            f"{folder}: no {LOOKS[0]}, so nobody knows how large and how bright the pictures must "
            "be. Copy it from where the model is from, or run the model: Backbone(function, name)."
        )
    try:
        safe = {"local_files_only": True, "trust_remote_code": False}
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **safe)
        rules |= {name: getattr(processor, name, None) for name in RULES}
    except Exception as error:  # a processor of clips, or one that needs torchvision
        why = _words(error)
    try:
        shape, mean, std = _shape(rules)
        if processor is not None:
            _compare(processor, shape, mean, std)
    except Exception as error:
        also = f"; its processor cannot be made here, {why}" if why else ""
        raise DataError(
            f"{folder}: cannot make the pictures that its processor makes ({_words(error)}{also}). "
            "Make them yourself: Backbone(function, name)."
        ) from error
    if processor is None:
        message = "pictures are made as its file says, but not compared with its own processor's"
        warnings.warn(f"{folder}: {message}, which cannot be made here ({why}).", stacklevel=4)
    return shape, mean, std


RULES = (
    "do_resize size crop_size do_center_crop crop_pct resample do_rescale rescale_factor "
    "do_normalize image_mean image_std offset"
).split()


def _rules(folder, is_clip):
    """Read a folder's settings of pictures, or of clips, from whichever file has them."""
    image, video, both = (_json(folder / name) for name in LOOKS)
    image = both.get("image_processor") or image
    video = both.get("video_processor") or video
    return dict((video or image) if is_clip else (image or video))


def _shape(rules):
    size, crop = rules.get("size"), rules.get("crop_size")
    if not rules.get("do_resize", True) or size is None:
        raise ValueError("pictures are not scaled, and those of films have any size")
    if isinstance(size, int):
        raise ValueError(f"size={size} may be the shorter side or both")
    size = dict(size)
    short, percent = size.pop("shortest_edge", None), rules.get("crop_pct")
    squeeze = short is None
    resize = _side(size) if squeeze else short
    if percent and short:  # ConvNeXt
        squeeze, crop = short >= 384, short
        resize = short if squeeze else int(short / percent)
    elif not rules.get("do_center_crop"):
        crop = resize
        if not squeeze:
            raise ValueError(f"pictures keep their sides: size={size}, and no crop")
    else:
        crop = crop if isinstance(crop, int) else _side(dict(crop))
    # Pixels 0 to 255 are scaled and shifted before they are normalised; ours go from 0 to 1.
    scale = 255 * (rules.get("rescale_factor") or 1 / 255) if rules.get("do_rescale", True) else 255
    normal, shift = rules.get("do_normalize", True), 1.0 if rules.get("offset") else 0.0
    mean, std = (rules["image_mean"], rules["image_std"]) if normal else ([0.0] * 3, [1.0] * 3)
    mean, std = [(value + shift) / scale for value in mean], [value / scale for value in std]
    kinds = {int(kind): name for name, kind in INTERPOLATIONS.items()}
    resample = rules.get("resample")
    interpolation = kinds[int(2 if resample is None else resample)]
    return Shape(crop, resize, squeeze, interpolation=interpolation), mean, std


def _side(size):
    height, width = size.get("height"), size.get("width")
    if height is None or height != width:
        raise ValueError(f"{size}: a square is needed")
    return height


def _compare(processor: Callable, shape, mean, std):
    """Show a picture to the model's own processor and to `shape`; ValueError where they differ."""
    short = shape.resize or shape.size
    sides = 4 * short // 3 + 1, 2 * short + 1, 3
    picture = np.random.default_rng(0).integers(0, 256, sides, dtype=np.uint8)
    theirs = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    ours = torch.from_numpy((shape(picture) / 255 - mean) / std).float().permute(2, 0, 1)
    theirs = theirs.reshape(-1, *theirs.shape[-3:])[0]
    # torchvision rounds otherwise than Pillow; another cut of this noise differs by 1 and more.
    if theirs.shape != ours.shape or (theirs - ours).abs().mean() > 0.02:
        raise ValueError(f"it does more than what was read of it: {shape}")
