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
from vidhash_lab.videos.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, open_backbone

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


class Tiny(nn.Module):
    """A network with a category layer, as libraries hand them out."""

    def __init__(self, categories=1000):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(7, categories))

    def forward(self, frames):
        return self.classifier(self.body(frames))


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
    torch.jit.script(network).save(path)
    backbone = open_backbone(path, "cpu")
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
    assert (backbone.frame_size, backbone.kept) == (8, 0.8)
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

    look = {"input_size": (3, 8, 8), "crop_pct": 0.9, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    data = SimpleNamespace(resolve_data_config=lambda args, model: look)
    known = {"is_model": lambda name: name == "tiny", "create_model": create_model}
    fake(monkeypatch, "timm", data=data, **known)
    backbone = open_backbone("timm:tiny", "cpu")
    assert asked == {"pretrained": True, "num_classes": 0}
    assert backbone(FRAMES).shape == (5, 7) and backbone.kept == 0.9
    with pytest.raises(DataError, match="timm has no such model"):
        open_backbone("timm:huge")


@pytest.mark.parametrize("pooled", [True, False])
def test_a_transformers_folder(monkeypatch, tmp_path, pooled):
    class Model(nn.Module):
        config = SimpleNamespace(image_size=8)

        def forward(self, pixel_values):
            tokens = pixel_values.flatten(2).mT  # (N, 64, 3)
            return SimpleNamespace(
                pooler_output=tokens[:, 0] if pooled else None, last_hidden_state=tokens
            )

    asked = {}

    def from_pretrained(folder, **options):
        asked.update(options)
        return Model()

    fake(monkeypatch, "transformers", AutoModel=SimpleNamespace(from_pretrained=from_pretrained))
    with pytest.raises(DataError, match=r"no config\.json"):
        open_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0,0,0], "image_std": [1,1,1]}'
    )
    backbone = open_backbone(tmp_path, "cpu")
    assert asked == {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    expected = FRAMES[:, 0, 0] if pooled else FRAMES.mean((1, 2))
    assert backbone.frame_size == 8 and np.allclose(backbone(FRAMES), expected / 255, atol=1e-5)


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


def test_large_batches_are_described_in_parts():
    seen = []

    def describe(frames):
        seen.append(len(frames))
        return frames.mean((2, 3))

    found = Backbone(describe, "means", 8)(np.repeat(FRAMES, 60, 0))
    assert found.shape == (300, 3) and max(seen) <= 128 and sum(seen) == 300
