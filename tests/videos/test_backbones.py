"""Backbones by name, file, folder and callable. Libraries that are not here are played by fakes."""

import sys
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from vidhash_lab.data import DataError
from vidhash_lab.data.stories.network import digit_features
from vidhash_lab.videos.backbones import Backbone, open_backbone
from vidhash_lab.videos.pictures import Shape

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


class Tiny(nn.Module):
    """A network with a category layer, as libraries hand them out."""

    def __init__(self, categories=1000):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(7, categories))

    def forward(self, frames):
        return self.classifier(self.body(frames))


class Noisy(nn.Module):
    """A network with dropout that no mode turns off."""

    def forward(self, frames):
        return nn.functional.dropout(frames.flatten(1), 0.5, training=True)


def normalised(frames):
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return ((torch.from_numpy(frames) / 255 - mean) / std).permute(0, 3, 1, 2)


def fake(monkeypatch, name, **members):
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@torch.inference_mode()
def test_the_digit_network():
    frames = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 1), dtype=np.uint8)
    backbone = open_backbone("digits")
    expected = digit_features(torch.from_numpy(frames[None, ..., 0]) / 255)[0]
    assert (backbone.frame_size, backbone.grey) == (32, True)
    assert np.allclose(backbone(frames), expected, atol=1e-5)


def test_a_callable_and_what_it_may_give():
    backbone = open_backbone(lambda frames: frames.mean((2, 3), keepdim=True))
    assert np.allclose(backbone(FRAMES), FRAMES.mean((1, 2)) / 255, atol=1e-6)
    assert "lambda" in backbone.name and open_backbone(backbone) is backbone
    for odd in (lambda x: x.mean(), lambda x: x[:2].flatten(1), lambda x: x.flatten()):
        with pytest.raises(DataError, match="expected \\(N, D\\)"):
            open_backbone(odd)(FRAMES)


def test_torchscript(tmp_path):
    network, path = Tiny().eval(), tmp_path / "mine.pt"
    torch.jit.script(Noisy()).save(path)
    with pytest.raises(DataError, match=r"other features of the same frames each time.*eval"):
        open_backbone(path, "cpu")
    torch.jit.script(network).save(path)
    backbone = open_backbone(path, "cpu")
    assert np.array_equal(backbone(FRAMES), open_backbone(path, "cpu")(FRAMES))
    plain = torch.from_numpy(FRAMES).permute(0, 3, 1, 2) / 255
    assert np.allclose(backbone(FRAMES), network(plain).detach(), atol=1e-5)
    assert backbone.name.startswith("mine.pt ") and len(backbone.name) == 20
    torch.save(network.state_dict(), path)
    with pytest.raises(DataError, match=r"mine\.pt: no TorchScript file"):
        open_backbone(path)
    path.write_bytes(b"words")
    with pytest.raises(DataError, match=r"mine\.pt: no TorchScript file"):
        open_backbone(path)


def fake_torchvision(monkeypatch, make):
    look = SimpleNamespace(crop_size=[8], resize_size=[10], mean=IMAGENET_MEAN, std=IMAGENET_STD)
    look.interpolation = SimpleNamespace(value="bilinear")
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: look))
    models = SimpleNamespace(
        list_models=lambda module: ["tiny"],
        get_model_weights=lambda name: weights,
        get_model=lambda name, weights: make(),
    )
    fake(monkeypatch, "torchvision", models=models)


def test_torchvision_without_its_last_layer(monkeypatch):
    network = Tiny().eval()
    fake_torchvision(monkeypatch, lambda: network)
    backbone = open_backbone("torchvision:tiny", "cpu")
    assert backbone.shape == Shape(8, 10, interpolation="bilinear")
    found = backbone(FRAMES)
    assert found.shape == (5, 7)
    assert np.allclose(found, network.body(normalised(FRAMES)).detach(), atol=1e-5)
    with pytest.raises(DataError, match="torchvision has no such model"):
        open_backbone("torchvision:huge")


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def fail(*_, **__):
        raise URLError("no network here")

    fake_torchvision(monkeypatch, fail)
    fake(monkeypatch, "timm", is_model=lambda name: True, create_model=fail)
    for name in ("torchvision:tiny", "timm:tiny"):
        with pytest.raises(DataError, match=r"could not be downloaded.*no network here"):
            open_backbone(name)


def test_timm(monkeypatch):
    asked = {}

    def create_model(name, **options):
        asked.update(options)
        return Tiny().body

    look = {"input_size": (3, 8, 8), "crop_pct": 0.75, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    look |= {"interpolation": "bicubic", "crop_mode": "squash"}
    data = SimpleNamespace(resolve_data_config=lambda args, model: look)
    known = {"is_model": lambda name: name == "tiny", "create_model": create_model}
    fake(monkeypatch, "timm", data=data, **known)
    backbone = open_backbone("timm:tiny", "cpu")
    assert asked == {"pretrained": True, "num_classes": 0}
    assert backbone(FRAMES).shape == (5, 7) and backbone.shape == Shape(8, 10, squeeze=True)
    with pytest.raises(DataError, match="timm has no such model"):
        open_backbone("timm:huge")


def test_onnx(monkeypatch, tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"a network")

    class Session:
        def __init__(self, path, providers):
            assert providers == ["CPUExecutionProvider"]

        def get_inputs(self):
            return [SimpleNamespace(name="x", shape=["batch", 3, 8, 8])]

        def run(self, outputs, feeds):
            return [feeds["x"].mean((2, 3))]

    fake(monkeypatch, "onnxruntime", InferenceSession=Session)
    backbone = open_backbone(path)
    assert backbone.frame_size == 8 and not backbone.grey
    assert np.allclose(backbone(FRAMES), FRAMES.mean((1, 2)) / 255, atol=1e-6)


def test_libraries_that_are_not_installed(monkeypatch, tmp_path):
    for name in ("torchvision", "timm", "transformers", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a.onnx").touch()
    wanted = {
        "torchvision:resnet50": "torchvision",
        "timm:resnet50": "timm",
        str(tmp_path): "transformers",
        str(tmp_path / "a.onnx"): "onnxruntime",
    }
    for which, library in wanted.items():
        with pytest.raises(DataError, match=f"pip install {library}"):
            open_backbone(which)


def test_names_and_files_that_are_no_backbone(tmp_path):
    for which in ("resnet50", "torchvision:", tmp_path / "nowhere.pt"):
        with pytest.raises(DataError, match="no such file or folder, and no name"):
            open_backbone(which)
    (tmp_path / "a.bin").touch()
    with pytest.raises(DataError, match=r"ends in \.onnx, \.pt"):
        open_backbone(tmp_path / "a.bin")


def test_clips_are_described_by_a_row_each_or_by_several():
    frames = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    seen = []

    def describe(clips):
        seen.append(tuple(clips.shape))
        return clips.mean((3, 4)).unflatten(1, (2, -1)).mean(2)  # of each half of a clip

    halves = Backbone(describe, "halves", 8, window=6, rows=2)
    expected = frames.reshape(100, 3, 64, 3).mean((1, 2)) / 255
    assert np.allclose(halves(frames), expected, atol=1e-5)
    assert {shape[1:] for shape in seen} == {(6, 3, 8, 8)} and max(s[0] for s in seen) * 6 <= 128
    whole = Backbone(lambda clips: clips.mean((1, 3, 4)), "wholes", 8, window=6)
    assert np.allclose(whole(frames), expected.reshape(50, 2, 3).mean(1), atol=1e-5)
    for odd in (lambda clips: clips.mean((1, 3, 4)), lambda clips: clips.mean((3, 4))):
        with pytest.raises(DataError, match=r"expected \(N, 2, D\), 2 rows"):
            Backbone(odd, "odd", 8, window=6, rows=2)(frames)
    with pytest.raises(DataError, match=r"expected \(N, D\), 1 row"):
        Backbone(lambda clips: clips[0], "odd", 8, window=6)(frames)
    for window, rows in ((6, 4), (0, 1), (2, 0)):
        with pytest.raises(ValueError, match="must divide"):
            Backbone(describe, "odd", window=window, rows=rows)


def test_an_output_is_chosen_of_model_folders_alone(tmp_path):
    for which in ("digits", describe_nothing, tmp_path / "a.pt", "timm:resnet50"):
        with pytest.raises(ValueError, match="only the folder of a transformers model"):
            open_backbone(which, output="class")


def describe_nothing(frames):
    return frames.mean((2, 3))


def test_large_batches_are_described_in_parts():
    seen = []

    def describe(frames):
        seen.append(len(frames))
        return frames.mean((2, 3))

    found = Backbone(describe, "means", 8)(np.repeat(FRAMES, 60, 0))
    assert found.shape == (300, 3) and max(seen) <= 128 and sum(seen) == 300
