"""Digit stories: the built-in data set of small videos in real handwriting, made in seconds.

A *story* is three different digits one after the other, say 3→7→1; a video tells it in three shots
of handwriting that drifts over a changing background, with sensor noise and now and then a wrong
digit (a *distractor*). Story 2c and story 2c + 1 are each other's reverse and make up category c:
only the order in time tells the two apart. Three disjoint pools of handwriting serve the feature
network, the training videos, and the videos of database and query. A video is first *drawn up*
(`draw_script`) and then *rendered*, so that it can be rendered again, larger, cropped or brighter.

B videos, T frames a video, D features a frame, N videos in a set, C categories; a video has three
shots, a single picture has one. Lengths are in half frame widths: -1 and 1 are a frame's borders.
"""

import hashlib
import json
import os
import tempfile
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from vidhash_lab.data.files import (
    DataError,
    check_seal,
    new_hdf5,
    remove_unfinished,
    seal,
    unfinished,
)
from vidhash_lab.data.stories import network
from vidhash_lab.data.stories.handwriting import choose_handwriting, handwriting, handwriting_pools

SPLITS = ("train", "database", "query")
NUM_CATEGORIES = 20  # and twice as many stories
FORMAT_VERSION = 2  # raise it when the same config gives other files: old caches are then left
CHUNK = 50  # videos rendered at a time: about 100 MB


@dataclass(frozen=True)
class DigitStoriesConfig:
    """Sizes and looks of the data set; every field is part of its cached folder's name.

    >>> DigitStoriesConfig(train=600, database=300, query=60).num_frames
    25
    """

    train: int = 4000
    database: int = 2000
    query: int = 500
    seed: int = 0
    num_frames: int = 25  # a shot lasts two frames or more
    shot_evenness: int = 6  # shot lengths ~ Dirichlet(6, 6, 6)
    digit_size: tuple[float, float] = (0.35, 0.65)  # a digit's share of the frame's width
    place: float = 0.45  # a digit's middle lies within +-place …
    velocity: float = 0.6  # … and drifts by up to this much, were its shot the whole video
    rotation: float = 0.3  # radians
    background: float = 0.4  # its brightest grey
    noise: float = 0.12  # standard deviation
    distractor_probability: float = 0.2  # of every frame

    def __post_init__(self):
        if self.num_frames < 6:
            raise ValueError(f"three shots need 6 frames or more, not {self.num_frames}")


@dataclass(frozen=True)
class Script:
    """What happens in B videos: all that `render_scene` needs. Index it like an array of videos.

    >>> numbers, script = split_script(DigitStoriesConfig(query=20), "query")
    >>> script[:2].shots.shape
    torch.Size([2, 25])
    """

    shots: Tensor  # (B, T) int64, the shot that a frame belongs to
    distractors: Tensor  # (B, T) bool
    handwriting: Tensor  # (B, T) int64, the picture shown: a row of `handwriting()`
    place: Tensor  # (B, T, 2), x to the right and y down
    size: Tensor  # (B, T)
    rotation: Tensor  # (B, T)
    background: Tensor  # (B, shots, 5, 5), coarse grey values

    def __getitem__(self, rows) -> "Script":
        return Script(*(getattr(self, field.name)[rows] for field in fields(self)))


def stories(config: DigitStoriesConfig) -> Tensor:
    """Draw the 40 stories, (40, 3) digits; rows 2c and 2c + 1 are category c in both directions.

    >>> stories(DigitStoriesConfig())[:2].tolist()  # one told in both directions
    [[1, 8, 3], [3, 8, 1]]
    """
    generator = seeded_generator(config, "stories")
    sets = torch.combinations(torch.arange(10), 3)  # all 120 sets of three digits
    chosen = sets[torch.randperm(len(sets), generator=generator)[:NUM_CATEGORIES]]
    order = torch.rand(chosen.shape, generator=generator).argsort(1)
    forward = chosen.gather(1, order)
    return torch.stack([forward, forward.flip(1)], 1).flatten(0, 1)


def seeded_generator(config: DigitStoriesConfig, purpose: str) -> Generator:
    """Give every purpose random numbers of its own: a larger split leaves the others unchanged.

    >>> seeded_generator(DigitStoriesConfig(), "stories").initial_seed() > 0
    True
    """
    digest = hashlib.sha256(f"{config.seed} {purpose}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def draw_script(
    digits: Tensor, num_frames: int, pool: Tensor, config: DigitStoriesConfig, generator: Generator
) -> Script:
    """Draw up B videos that show (B, shots) digits, by the rows `pool` of handwriting -> Script.

    >>> config, pool = DigitStoriesConfig(), handwriting_pools()["test"]
    >>> digits = torch.tensor([[3, 7, 1]])
    >>> script = draw_script(digits, 25, pool, config, torch.Generator().manual_seed(0))
    >>> render_scene(script).shape
    torch.Size([1, 25, 32, 32])
    """
    B, num_shots = digits.shape

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(B, num_shots, *shape, generator=generator)

    shots = _draw_shots(B, num_shots, num_frames, config.shot_evenness, generator)
    in_shot = F.one_hot(shots, num_shots).float()  # (B, T, shots)
    time = torch.arange(num_frames).float()
    middle = (time @ in_shot) / in_shot.sum(1)  # (B, shots)
    drift = (time - middle.gather(1, shots)) / num_frames  # (B, T), 0 in the middle of a shot

    distractors = torch.rand(B, num_frames, generator=generator) < config.distractor_probability
    wrong = torch.randint(1, 10, shots.shape, generator=generator)  # added, never the same digit
    others = choose_handwriting((digits.gather(1, shots) + wrong) % 10, pool, generator)
    chosen = choose_handwriting(digits, pool, generator).gather(1, shots)

    video = torch.arange(B)[:, None]  # x[video, shots]: (B, shots, …) -> (B, T, …)
    place = uniform(-config.place, config.place, 2)[video, shots]
    velocity = uniform(-config.velocity, config.velocity, 2)[video, shots]
    return Script(
        shots=shots,
        distractors=distractors,
        handwriting=torch.where(distractors, others, chosen),
        place=place + velocity * drift[..., None],
        size=uniform(*config.digit_size)[video, shots],
        rotation=uniform(-config.rotation, config.rotation)[video, shots],
        background=uniform(0, config.background, 5, 5),
    )


def _draw_shots(B, num_shots, num_frames, evenness, generator):
    """Cut B videos into shots of two frames or more -> (B, T) the number of a frame's shot."""
    # A Dirichlet draw: sums of `evenness` exponentials, divided by their total.
    shares = torch.empty(B, num_shots, evenness).exponential_(generator=generator).sum(2)
    cuts = (shares.cumsum(1) / shares.sum(1, keepdim=True) * num_frames).round()[:, :-1]
    earliest = 2 * torch.arange(1, num_shots)
    slack = (cuts - earliest).clamp(0, max(num_frames - 2 * num_shots, 0)).cummax(1).values
    return (torch.arange(num_frames)[:, None] >= (earliest + slack)[:, None]).sum(2)


def render_scene(script: Script, frame_size: int = network.FRAME_SIZE) -> Tensor:
    """Render the brighter of digit and background -> (B, T, frame_size, frame_size) in [0, 1].

    >>> numbers, script = split_script(DigitStoriesConfig(query=20), "query")
    >>> render_scene(script[:2], frame_size=64).shape
    torch.Size([2, 25, 64, 64])
    """
    B, T = script.shots.shape
    # Where in the digit's own picture a frame's pixel lies: turned back, enlarged, moved back.
    cosine, sine = script.rotation.cos(), script.rotation.sin()
    turn = torch.stack([cosine, sine, -sine, cosine], -1).unflatten(-1, (2, 2))
    turn = turn / script.size[..., None, None]
    shift = -turn @ script.place[..., None]
    motion = torch.cat([turn, shift], -1).flatten(0, 1)  # (B T, 2, 3)
    grid = F.affine_grid(motion, (B * T, 1, frame_size, frame_size), align_corners=False)
    pictures = handwriting()[0][script.handwriting].flatten(0, 1)[:, None]
    digits = F.grid_sample(pictures, grid, align_corners=False).unflatten(0, (B, T))[:, :, 0]

    size = (frame_size, frame_size)
    backgrounds = F.interpolate(script.background, size, mode="bicubic", align_corners=True)
    return torch.maximum(digits, backgrounds[torch.arange(B)[:, None], script.shots]).clamp(0, 1)


def render(script: Script, config: DigitStoriesConfig, generator: Generator) -> Tensor:
    """Render B videos with the sensor's Gaussian noise -> (B, T, 32, 32) float32 in [0, 1].

    >>> config = DigitStoriesConfig(query=20)
    >>> numbers, script = split_script(config, "query")
    >>> render(script[:2], config, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 25, 32, 32])
    """
    scene = render_scene(script)
    noise = torch.randn(scene.shape, generator=generator)
    return noise.mul_(config.noise).add_(scene).clamp_(0, 1)


def split_script(config: DigitStoriesConfig, split: str) -> tuple[Tensor, Script]:
    """Draw up all videos of "train", "database" or "query" -> (N,) their stories, Script.

    >>> numbers, script = split_script(DigitStoriesConfig(query=20), "query")
    >>> numbers.shape, len(numbers.unique())
    (torch.Size([20]), 20)
    """
    generator = seeded_generator(config, f"{split} script")
    number = torch.arange(getattr(config, split))
    # Every category as often, then both of its directions as often.
    even = 2 * (number % NUM_CATEGORIES) + number // NUM_CATEGORIES % 2
    story = even[torch.randperm(len(even), generator=generator)]
    pool = handwriting_pools()["train" if split == "train" else "test"]
    return story, draw_script(stories(config)[story], config.num_frames, pool, config, generator)


def _layout(config, split):
    N, T = getattr(config, split), config.num_frames
    return {
        "feats": ((N, T, network.FEATURE_DIM), "float16"),
        "thumbnails": ((N, T, network.FRAME_SIZE, network.FRAME_SIZE), "uint8"),
        "labels": ((N, NUM_CATEGORIES), "bool"),  # one-hot categories
        "fine_labels": ((N, 2 * NUM_CATEGORIES), "bool"),  # one-hot stories
        "shots": ((N, T), "int8"),  # 0, 1, 2: the shot that a frame belongs to
        "distractors": ((N, T), "bool"),
    }


@network.one_thread()
def build(config: DigitStoriesConfig, folder: Path) -> None:
    """Render the data set, describe its 8-bit thumbnails: writes three HDF5 files into `folder`.

    >>> Path("stories").mkdir()
    >>> build(DigitStoriesConfig(train=50, database=50, query=50), Path("stories"))
    >>> sorted(path.name for path in Path("stories").iterdir())
    ['database.h5', 'query.h5', 'train.h5']
    """
    digits, side = stories(config).tolist(), network.FRAME_SIZE
    attributes = {
        "config": json.dumps(asdict(config)),
        "backbone": network.BACKBONE,
        "frames": f"all {config.num_frames} frames, {side} x {side} grey",
        "story_names": ["→".join(map(str, story)) for story in digits],
        "category_names": ["·".join(map(str, sorted(story))) for story in digits[::2]],
    }
    total = config.train + config.database + config.query
    with tqdm(total=total, desc="building digit stories", unit=" videos") as progress:
        for split in SPLITS:
            with new_hdf5(folder / f"{split}.h5") as file:
                file.attrs.update(attributes)
                for name, (shape, dtype) in _layout(config, split).items():
                    file.create_dataset(name, shape, dtype)
                story, script = split_script(config, split)
                file["labels"][:] = F.one_hot(story // 2, NUM_CATEGORIES).bool()
                file["fine_labels"][:] = F.one_hot(story, 2 * NUM_CATEGORIES).bool()
                file["shots"][:] = script.shots.char()
                file["distractors"][:] = script.distractors
                generator = seeded_generator(config, f"{split} noise")
                for start in range(0, len(story), CHUNK):
                    rows = slice(start, min(start + CHUNK, len(story)))
                    thumbnails = render(script[rows], config, generator).mul_(255).round_().byte()
                    file["thumbnails"][rows] = thumbnails
                    file["feats"][rows] = network.digit_features(thumbnails / 255).half()
                    progress.update(len(thumbnails))
            seal(folder / f"{split}.h5")


def cache_name(config: DigitStoriesConfig) -> str:
    """Name the folder of a config: another config, file format or network, another name.

    >>> cache_name(DigitStoriesConfig()) == cache_name(DigitStoriesConfig(seed=1))
    False
    """
    digest = hashlib.sha256(f"{config} {FORMAT_VERSION}".encode() + network.WEIGHTS.read_bytes())
    return f"digit-stories-{digest.hexdigest()[:12]}"


def is_complete(folder: Path) -> bool:
    """Tell whether the folder holds its three files as they were built, by their checksums.

    >>> is_complete(Path("no such folder"))
    False
    """
    with suppress(DataError, FileNotFoundError):
        for split in SPLITS:
            check_seal(folder / f"{split}.h5")
        return True
    return False


def open_or_build(config: DigitStoriesConfig, cache_folder: Path) -> Path:
    """Return the folder of the finished data set, built now where it is missing or damaged.

    Several processes may do so at once: each builds in a folder of its own, then renames it.

    >>> config = DigitStoriesConfig(train=50, database=50, query=50)
    >>> open_or_build(config, Path("cache")).name == cache_name(config)
    True
    """
    folder = cache_folder / cache_name(config)
    remove_unfinished(folder)
    was_there = folder.exists()
    if is_complete(folder):
        return folder
    if was_there:
        warnings.warn(f"the data set in {folder} is damaged: building it again", stacklevel=2)
    folder.parent.mkdir(parents=True, exist_ok=True)
    names = {"prefix": unfinished(folder), "suffix": f".{os.getpid()}"}
    with tempfile.TemporaryDirectory(**names, dir=folder.parent) as workplace:
        new = Path(workplace) / "new"
        new.mkdir()
        build(config, new)
        if not is_complete(folder):  # else another process was faster
            with suppress(FileNotFoundError):
                folder.rename(Path(workplace) / "damaged")
            try:
                new.rename(folder)
            except OSError:  # in this very moment another process was faster
                if not is_complete(folder):
                    raise
    return folder
