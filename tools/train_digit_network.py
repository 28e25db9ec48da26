"""Train the network of the built-in data set anew, and overwrite the weights that are shipped.

    python tools/train_digit_network.py

Only a maintainer runs this: other weights are other features, and every number measured on the
digit stories changes with them. The network learns the ten digits in single frames of the "network"
pool of handwriting, as the data set renders them; digits of the other two pools tell how well it
reads. Two minutes on two cores.

N frames, D = 128 features.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm.auto import trange

from vidhash_lab.data.stories.digit_stories import DigitStoriesConfig, draw_script, render
from vidhash_lab.data.stories.handwriting import handwriting_pools
from vidhash_lab.data.stories.network import WEIGHTS, DigitNetwork, digit_features, shipped_network

DrawFrames = Callable[[int], tuple[Tensor, Tensor]]  # N -> (N, 32, 32) frames, (N,) digits
CONFIG = replace(DigitStoriesConfig(), distractor_probability=0.0)


def frames_of(pool: Tensor, generator: torch.Generator) -> DrawFrames:
    """Return the function that draws frames of this pool of handwriting, one digit in each."""

    def draw_frames(count):
        digits = torch.randint(10, (count, 1), generator=generator)
        script = draw_script(digits, 1, pool, CONFIG, generator)
        return render(script, CONFIG, generator)[:, 0], digits[:, 0]

    return draw_frames


def train(
    draw_frames: DrawFrames, steps: int = 1200, batch_size: int = 128, seed: int = 0
) -> DigitNetwork:
    """Teach a network the digits of the frames that are drawn."""
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
    """Train, write the weights, and report how the network reads handwriting it has not seen."""
    pools, generator = handwriting_pools(), torch.Generator().manual_seed(0)
    draw_frames = frames_of(pools["network"], generator)
    network = fold(train(draw_frames), draw_frames(5000)[0])
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, WEIGHTS)

    frames, digits = frames_of(torch.cat([pools["train"], pools["test"]]), generator)(10_000)
    features = digit_features(frames.unsqueeze(1)).squeeze(1)
    right = shipped_network().head(features).argmax(1) == digits
    print(f"{WEIGHTS.stat().st_size:,} bytes; unseen digits: {right.float().mean():.1%} right")
    print(f"features: {(features > 0).float().mean():.1%} not zero, std {features.std():.3f}")


if __name__ == "__main__":
    main()
