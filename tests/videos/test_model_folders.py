"""Folders of transformers models, made here with seeded weights: equal to the library, or refused.

Every family's smallest model is saved as users get it, with its processor's file.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from vidhash_lab.data import DataError, FeatureSet
from vidhash_lab.videos.backbones import open_backbone
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.pictures import Shape
from vidhash_lab.videos.writing import write_video

transformers = pytest.importorskip(
    "transformers", reason="MODEL FOLDERS NOT TESTED: transformers is not installed"
)
safetensors = pytest.importorskip("safetensors.torch")
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TEXTS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 50}
TEXTS |= {"num_attention_heads": 2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
V_JEPA_2 = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "crop_size": 32}
V_JEPA_2 |= {"patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2, "pred_hidden_size": 24}
V_JEPA_2 |= {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]}
SQUARE, SHORT = {"height": 32, "width": 32}, {"shortest_edge": 40}


def cut(name, size=SHORT):
    return lambda: getattr(transformers, name)(size=size, crop_size=32)


def squeezed(name):
    return lambda: getattr(transformers, name)(size=SQUARE)


def dual(name, **options):
    config = getattr(transformers, f"{name}Config")
    return lambda: getattr(transformers, f"{name}Model")(
        config(vision_config=TINY, text_config=TEXTS, **options)
    )


def single(name, kind="Model", **options):
    config = getattr(transformers, f"{name}Config")
    return lambda: getattr(transformers, f"{name}{kind}")(config(**options))


FAMILIES = {  # model, processor, frames of a clip, the model's own output
    "clip": (dual("CLIP", projection_dim=24), cut("CLIPImageProcessor"), 1, "projection"),
    "clip-tower": (
        single("CLIPVision", **TINY), cut("CLIPImageProcessor"), 1, "pooled"
    ),
    "siglip": (dual("Siglip"), squeezed("SiglipImageProcessor"), 1, "projection"),
    "dinov2": (
        single("Dinov2", **TINY | {"image_size": 64}), cut("BitImageProcessor"), 1, "pooled"
    ),
    "dinov3": (
        single("DINOv3ViT", num_register_tokens=2, **TINY), squeezed("ViTImageProcessor"), 1,
        "pooled",
    ),
    "vit": (single("ViT", **TINY), squeezed("ViTImageProcessor"), 1, "pooled"),
    "vit-classifier": (
        single("ViT", "ForImageClassification", **TINY), squeezed("ViTImageProcessor"), 1, "class"
    ),
    "swin": (single("Swin", window_size=4, **SWIN), squeezed("ViTImageProcessor"), 1, "pooled"),
    "resnet": (
        single("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
        lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8),
        1, "pooled",
    ),
    "videomae": (
        single("VideoMAE", num_frames=4, **TINY), cut("VideoMAEImageProcessor"), 4, "patches"
    ),
    "timesformer": (
        single("Timesformer", num_frames=4, **TINY), cut("VideoMAEImageProcessor"), 4, "class"
    ),
    "vivit": (
        single("Vivit", num_frames=4, tubelet_size=[2, 8, 8], **TINY),
        cut("VivitImageProcessor"), 4, "pooled",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Make the folder of a family once, with seeded weights."""
    made = tmp_path_factory.mktemp("models")

    def make(name):
        if not (made / name).exists():
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model, processor = FAMILIES[name][:2]
                model().save_pretrained(made / name)
            processor().save_pretrained(made / name)
        return made / name

    return make


@pytest.fixture
def folder(models, tmp_path):
    """Copy the folder of a family, to be spoilt."""
    return lambda name: shutil.copytree(models(name), tmp_path / name)


def photographs(count, height=50, width=70):
    """Frames of a film, of other sides than any model wants."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return [
        np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC))
        for each in noise
    ]


def library_features(folder, frames, window, output):
    """Show frames to the library's own processor and model, as its documentation does."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pictures = [Image.fromarray(frame) for frame in frames]
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    pixels = pixels.reshape(-1, *([window] if window > 1 else []), *pixels.shape[-3:])
    with torch.no_grad():
        if output == "projection":
            return model.get_image_features(pixel_values=pixels).pooler_output
        found = model(pixel_values=pixels)
    states = found.last_hidden_state
    ways = {"pooled": lambda: found.pooler_output.flatten(1), "class": lambda: states[:, 0]}
    return ways.get(output, lambda: states.mean(1))()


@pytest.mark.parametrize("name", FAMILIES)
def test_features_equal_the_librarys_own(models, name):
    *_, window, output = FAMILIES[name]
    backbone = open_backbone(models(name), "cpu")
    assert (backbone.window, backbone.about["output"]) == (window, output)
    for height, width in ((50, 70), (64, 41), (40, 40)):
        frames = photographs(2 * window, height, width)
        found = backbone(np.stack([backbone.shape(frame) for frame in frames]))
        expected = library_features(models(name), frames, window, output).numpy()
        assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-4
    again = open_backbone(models(name), "cpu")
    frames = np.stack([again.shape(frame) for frame in frames])
    assert again.name == backbone.name and again.about == backbone.about
    assert np.array_equal(again(frames), backbone(frames))


def test_a_model_of_clips_whose_processor_is_not_here(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = single("VJEPA2", **V_JEPA_2)().eval()
    model.save_pretrained(tmp_path / "v-jepa-2")
    look = {"video_processor_type": "VJEPA2VideoProcessor", "do_resize": True, "resample": 2}
    look |= {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": SQUARE}
    look |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    look |= {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    (tmp_path / "v-jepa-2/video_preprocessor_config.json").write_text(json.dumps(look))
    with pytest.warns(UserWarning, match="made as its file says, but not compared"):
        backbone = open_backbone(tmp_path / "v-jepa-2", "cpu")
    assert backbone.shape == Shape(32, 36, interpolation="bilinear") and backbone.window == 4
    frames = np.stack(photographs(8, 32, 32))
    pixels = torch.from_numpy((frames / 255 - look["image_mean"]) / look["image_std"]).float()
    clips = pixels.permute(0, 3, 1, 2).unflatten(0, (2, 4))
    with torch.no_grad():
        expected = model(pixel_values_videos=clips, skip_predictor=True).last_hidden_state.mean(1)
    assert np.abs(backbone(frames) - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize("name", ["clip", "dinov2", "vit-classifier", "videomae"])
def test_other_outputs_can_be_chosen(models, name):
    *_, window, _ = FAMILIES[name]
    frames = np.stack(photographs(2 * window, 32, 32))
    shapes, names = {}, set()
    for output in ("projection", "pooled", "class", "patches"):
        try:
            backbone = open_backbone(models(name), "cpu", output)
        except DataError as error:
            shapes[output] = str(error)
        else:
            assert backbone.about["output"] == output
            shapes[output] = backbone(frames).shape
            names.add(tuple(sorted(map(str, backbone.about.items()))))
    assert len(names) == len([shape for shape in shapes.values() if isinstance(shape, tuple)])
    assert shapes["patches"] == (2, 32)
    if name == "clip":
        assert shapes["projection"] == (2, 24) and shapes["class"] == (2, 32)
    else:
        assert "has no output 'projection', only" in shapes["projection"]
    if name == "vit-classifier":  # the file has no pooler: its features would be random
        assert "pooler.dense.bias, pooler.dense.weight missing" in shapes["pooled"]
    with pytest.raises(ValueError, match="must be one of projection, pooled"):
        open_backbone(models(name), "cpu", "best")


def rename_weights(folder, rename):
    path = folder / "model.safetensors"
    weights = {rename(name): value for name, value in safetensors.load_file(path).items()}
    safetensors.save_file({k: v for k, v in weights.items() if k}, path, {"format": "pt"})


@pytest.mark.parametrize(
    "rename, words",
    [
        (lambda name: f"module.net.{name}", "layernorm.weight"),
        (lambda name: name.replace("layer.1.", "layer.7."), "encoder.layer.1.attention"),
        (lambda name: "" if name == "embeddings.cls_token" else name, "embeddings.cls_token"),
        (lambda name: "" if "patch_embeddings" in name else name, "patch_embeddings"),
    ],
)
def test_weights_that_are_not_found_are_named(folder, rename, words):
    spoilt = folder("dinov2")
    rename_weights(spoilt, rename)
    with pytest.raises(DataError, match=r"weights do not fit.*missing.*would be random") as caught:
        open_backbone(spoilt, "cpu")
    if "module" not in rename("x"):
        assert words in str(caught.value)


def test_weights_that_no_feature_depends_on_may_be_missing(folder):
    whole, less = folder("clip"), None
    frames = np.stack(photographs(2, 32, 32))
    backbone = open_backbone(whole, "cpu")
    rename_weights(whole, lambda name: "" if name.startswith("text_model") else name)
    less = open_backbone(whole, "cpu")
    assert np.array_equal(backbone(frames), less(frames))
    assert less.name == open_backbone(whole, "cpu").name  # what is random is in no digest


def test_sizes_that_do_not_fit_are_refused(folder):
    spoilt = folder("dinov2")
    config = json.loads((spoilt / "config.json").read_text())
    (spoilt / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(DataError, match=r"no model that can be opened|weights do not fit"):
        open_backbone(spoilt, "cpu")


def test_the_name_is_of_the_weights(folder):
    mine = folder("dinov2")
    before = open_backbone(mine, "cpu")
    config = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0.0"}))
    assert open_backbone(mine, "cpu").about == before.about
    (mine / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    other = open_backbone(mine, "cpu")
    assert other.name == before.name and other.about["config"] != before.about["config"]
    path = mine / "model.safetensors"
    weights = safetensors.load_file(path)
    weights["layernorm.weight"] += 1
    safetensors.save_file(weights, path, {"format": "pt"})
    assert open_backbone(mine, "cpu").name != before.name


LOOKS = [  # older forms of processor files, and what they mean
    ("clip", {"size": 40, "crop_size": 32}, Shape(32, 40)),
    ("clip", {"size": 40, "crop_size": 32, "resample": 2}, Shape(32, 40, interpolation="bilinear")),
    ("vit", {"size": 32}, Shape(32, 32, squeeze=True, interpolation="bilinear")),
    ("vit", {"size": {"height": 32, "width": 32}, "do_normalize": False},
     Shape(32, 32, squeeze=True, interpolation="bilinear")),
    ("videomae", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
     Shape(32, 36, interpolation="bilinear")),
]  # fmt: skip


@pytest.mark.parametrize("name, look, shape", LOOKS)
def test_every_form_of_a_processor_file(folder, name, look, shape):
    mine = folder(name)
    path = mine / "preprocessor_config.json"
    kind = json.loads(path.read_text())["image_processor_type"]
    old = {"feature_extractor_type": kind.replace("ImageProcessor", "FeatureExtractor")}
    for spelling in ({"image_processor_type": kind}, old):
        path.write_text(json.dumps(spelling | look))
        backbone = open_backbone(mine, "cpu")
        assert backbone.shape == shape
        plain = look.get("do_normalize") is False
        assert not plain or (backbone.about["mean"], backbone.about["std"]) == ([0] * 3, [1] * 3)
    together = {"image_processor": {"image_processor_type": kind} | look}
    path.unlink()
    (mine / "processor_config.json").write_text(json.dumps(together))
    assert open_backbone(mine, "cpu").shape == shape


@pytest.mark.parametrize(
    "look, words",
    [
        ({"do_resize": False}, "are not scaled"),
        ({"size": {"height": 32, "width": 48}, "do_center_crop": False}, "a square is needed"),
        ({"do_center_crop": False}, "keep their sides"),
        ({"crop_size": 64}, "must be 64 pixels or more"),
        ({"image_mean": None}, "cannot make the pictures"),
    ],
)
def test_pictures_that_cannot_be_made_are_refused(folder, look, words):
    mine = folder("clip")
    path = mine / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | look))
    with pytest.raises(DataError, match=words):
        open_backbone(mine, "cpu")


def test_a_processor_that_does_more_is_refused(folder, monkeypatch):
    mine = folder("clip")
    kind = type(transformers.AutoImageProcessor.from_pretrained(mine))
    preprocess = kind.preprocess

    def mirrored(self, *arguments, **options):
        found = preprocess(self, *arguments, **options)
        found["pixel_values"] = found["pixel_values"].flip(-1)
        return found

    monkeypatch.setattr(kind, "preprocess", mirrored)
    with pytest.raises(DataError, match="does more than what was read of it"):
        open_backbone(mine, "cpu")


def test_folders_that_are_refused(folder, models, tmp_path):
    mine = folder("dinov2")
    (mine / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match=r"no preprocessor_config\.json, so nobody knows"):
        open_backbone(mine, "cpu")
    (mine / "preprocessor_config.json").write_text("{")
    with pytest.raises(DataError, match=r"preprocessor_config\.json: damaged"):
        open_backbone(mine, "cpu")
    (mine / "config.json").unlink()
    with pytest.raises(DataError, match=r"no config\.json"):
        open_backbone(mine, "cpu")
    torch.save({}, mine / "pytorch_model.bin")
    (mine / "model.safetensors").unlink()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(models("dinov2") / name, mine)
    with pytest.raises(DataError, match="pickles are never read"):
        open_backbone(mine, "cpu")


def test_no_code_of_a_folder_runs(folder, tmp_path):
    mine, ran = folder("dinov2"), tmp_path / "ran"
    (mine / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    for name, key in (("config", "AutoModel"), ("preprocessor_config", "AutoImageProcessor")):
        path = mine / f"{name}.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | {"auto_map": {key: "mine.Mine"}}))
        with pytest.raises(DataError, match=rf"{name}\.json: wants Python code .* refused"):
            open_backbone(mine, "cpu")
        path.write_text(before)
    (mine / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="an adapter of another model"):
        open_backbone(mine, "cpu")
    assert not ran.exists()


def test_models_that_are_none_of_pictures_or_draw_numbers(tmp_path):
    texts = single("Bert", **{k: v for k, v in TEXTS.items() if not k.endswith("_id")})
    squeezed("ViTImageProcessor")().save_pretrained(tmp_path / "texts")
    texts().save_pretrained(tmp_path / "texts")
    with pytest.raises(DataError, match=r"a BertModel, which cannot describe frames \(1, 3, 32"):
        open_backbone(tmp_path / "texts", "cpu")
    single("ViTMAE", **TINY)().save_pretrained(tmp_path / "masked")
    squeezed("ViTImageProcessor")().save_pretrained(tmp_path / "masked")
    with pytest.raises(DataError, match="other features of the same frames each time"):
        open_backbone(tmp_path / "masked", "cpu")


def test_a_folder_of_videos_by_a_model_of_clips(models, tmp_path):
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 256, (24, 6, 8, 3), dtype=np.uint8)
        write_video(tmp_path / f"films/{number}.mp4", frames.repeat(8, 1).repeat(8, 2), 6)
    extract(tmp_path / "films", tmp_path / "out.h5", 3, models("videomae"), device="cpu")
    features = FeatureSet(tmp_path / "out.h5")
    assert features.features.shape == (3, 3, 32) and features.thumbnails.shape[:2] == (3, 3)
    backbone = open_backbone(models("videomae"), "cpu")
    assert features.attributes["weights"] == backbone.about["weights"]
    assert features.attributes["output"] == "patches"
    assert "3 clips of 4 frames" in features.attributes["frames"]
    with pytest.raises(DataError, match="was begun with backbone"):
        other = open_backbone(models("timesformer"), "cpu")
        extract(tmp_path / "films", tmp_path / "out.h5", 3, other)
