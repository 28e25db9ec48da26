"""The handwriting of the built-in data set, and the tiny network that describes its frames.

The network plays the part that an ImageNet network plays for real videos: trained once, on other
pictures than those it is used on, to tell ten digits apart under the clutter of `digit_stories`;
its last hidden layer then describes a frame by 128 numbers, never negative and mostly zero.

    python -m vidhash_lab.data.stories.network       trains it anew and writes the shipped weights

B videos, T frames a video, N frames in a row, D = 128 features.
"""

from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm.auto import trange

FRAME_SIZE = 32  # pixels a side
FEATURE_DIM = 128
WEIGHTS = Path(__file__).with_name("digit_network.safetensors")


@cache
def handwriting() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits: (1797, 8, 8) pictures in [0, 1] and (1797,) digits 0 to 9."""
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    digits = load_digits()
    return torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target)


@cache
def handwriting_pools() -> dict[str, Tensor]:
    """Divide the handwriting into rows for "network" (600), "train" (600) and "test" (597).

    Always in the same way, whatever the data set's seed: the shipped network has seen its pool.
    """
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    return dict(zip(("network", "train", "test"), order.split(600)))


def choose_handwriting(digits: Tensor, pool: Tensor, generator: torch.Generator) -> Tensor:
    """Pick a random picture of the pool for each digit, of any shape -> rows of `handwriting`."""
    classes = handwriting()[1][pool]
    by_class = pool[classes.argsort(stable=True)]
    counts = classes.bincount(minlength=10)
    first = counts.cumsum(0) - counts
    pick = torch.randint(2**40, digits.shape, generator=generator) % counts[digits]
    return by_class[first[digits] + pick]


class DigitNetwork(nn.Module):
    """Three convolutions, a hidden layer (the features) and ten logits.

    `norm` is batch normalisation while the network learns. The shipped network has it folded into
    the convolutions, and the features' scale into the hidden layer: see `fold`.
    """

    def __init__(self, norm: type[nn.Module] = nn.Identity):
        super().__init__()
        layers = []
        for inputs, outputs in ((1, 24), (24, 48), (48, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), norm(outputs)]
            layers += [nn.MaxPool2d(2), nn.ReLU()]  # in either order the same; this one is cheaper
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Linear(64 * (FRAME_SIZE // 8) ** 2, FEATURE_DIM)
        self.head = nn.Linear(FEATURE_DIM, 10)

    def features(self, frames: Tensor) -> Tensor:
        """Describe (N, 32, 32) frames in [0, 1] by their hidden activations -> (N, D), >= 0."""
        maps = self.convolutions(frames.unsqueeze(1))
        return F.relu(self.hidden(maps.flatten(1)))

    def forward(self, frames: Tensor) -> Tensor:
        """Score the ten digits: (N, 32, 32) frames -> (N, 10) logits."""
        return self.head(F.dropout(self.features(frames), 0.5, self.training))


@cache
def shipped_network() -> DigitNetwork:
    """Load the network that comes with the package (float16 on disk, float32 here), once."""
    network = DigitNetwork()
    network.load_state_dict(load_file(WEIGHTS))  # copied into float32 parameters
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@contextmanager
def one_thread():
    """Let torch use one thread for a while, also as a decorator: `@one_thread()`.

    Features then are the same to the last bit on any number of cores; and small steps in several
    threads would wait for each other, ten times as long where other programs keep the cores busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
@torch.no_grad()
def digit_features(frames: Tensor) -> Tensor:
    """Describe (B, T, 32, 32) frames in [0, 1] -> (B, T, D) float32 features.

    Over the data set, features have standard deviation 1 and about one in five is not zero.
    """
    # Parts of this size stay in the processor's cache.
    parts = [shipped_network().features(part) for part in frames.flatten(0, 1).split(125)]
    return torch.cat(parts).unflatten(0, frames.shape[:2])


# ---- training: only for whoever wants other weights -------------------------------------------


def train(draw_frames, steps: int = 1200, batch_size: int = 128, seed: int = 0) -> DigitNetwork:
    """Teach a network the digits of `draw_frames(N) -> (N, 32, 32) frames, (N,) digits`."""
    with torch.random.fork_rng():  # initial weights and dropout know only the global generator
        torch.manual_seed(seed)
        network = DigitNetwork(nn.BatchNorm2d).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        progress = trange(steps, desc="digit network")
        for _ in progress:
            frames, digits = draw_frames(batch_size)
            loss = F.cross_entropy(network(frames), digits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return network.eval()


@torch.no_grad()
def fold(network: DigitNetwork, frames: Tensor) -> DigitNetwork:
    """Rewrite a trained network without normalisation, its features of `frames` having std 1.

    Dividing the hidden layer by a number divides its ReLU by it too; the head makes up for it.
    """
    folded = DigitNetwork().eval()
    for i in range(0, len(network.convolutions), 4):
        fused = fuse_conv_bn_eval(network.convolutions[i], network.convolutions[i + 1])
        folded.convolutions[i].load_state_dict(fused.state_dict())
    scale = network.features(frames).std()
    folded.hidden.weight.copy_(network.hidden.weight / scale)
    folded.hidden.bias.copy_(network.hidden.bias / scale)
    folded.head.weight.copy_(network.head.weight * scale)
    folded.head.bias.copy_(network.head.bias)
    return folded


def main():
    """Train on the network's own pool of handwriting, write the weights, report on the others."""
    # Imported here: digit_stories stands above this file and takes its features from it.
    from vidhash_lab.data.stories import digit_stories as stories

    config = replace(stories.DigitStoriesConfig(), distractor_probability=0.0)
    generator = torch.Generator().manual_seed(0)
    pools = stories.handwriting_pools()

    def draw_frames(count, pool=pools["network"]):
        digits = torch.randint(10, (count, 1), generator=generator)
        script = stories.draw_script(digits, 1, pool, config, generator)
        return stories.render(script, config, generator)[:, 0], digits[:, 0]

    network = fold(train(draw_frames), draw_frames(5000)[0])
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, WEIGHTS)

    frames, digits = draw_frames(10_000, torch.cat([pools["train"], pools["test"]]))
    features = digit_features(frames.unsqueeze(1)).squeeze(1)
    right = shipped_network().head(features).argmax(1) == digits
    print(f"{WEIGHTS.stat().st_size:,} bytes; unseen digits: {right.float().mean():.1%} right")
    print(f"features: {(features > 0).float().mean():.1%} not zero, std {features.std():.3f}")


if __name__ == "__main__":
    main()
