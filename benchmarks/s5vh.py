"""S5VH `small` at FCVID's shape beside ConMH `small`, its scan and convolution beside plain torch.

    python benchmarks/s5vh.py

Training: steps of a model, its losses, backward and Adam, on random features in memory. Encoding:
the model alone. Float32; each figure is a median after warm-up, and what is compared is measured by
turns in one run. Seconds are those of the processor where there is one thread, so that others on
the machine weigh less; elsewhere they are those of the clock. Multiply-adds are those of matrix
products and, of the scan, four a state and step.
"""

import statistics
import time
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidhash_lab import S5VH, ConMH
from vidhash_lab.models.conmh import draw_masks
from vidhash_lab.models.s5vh import STATE, TAPS, Scan
from vidhash_lab.models.selective_scan import (
    causal_convolution,
    gated_scan,
    plain_convolution,
    plain_gated_scan,
)

BATCH, REPEATS = 128, 5
CLOCK = time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def by_turns(functions):
    """Median seconds of each function, called by turns after one call to warm up."""
    seconds = [[] for _ in functions]
    for _ in range(REPEATS + 1):
        for function, taken in zip(functions, seconds):
            started = CLOCK()
            function()
            taken.append(CLOCK() - started)
    return [statistics.median(taken[1:]) for taken in seconds]


# ---- the layers along time -----------------------------------------------------------------------


def compare(name, compiled, plain, inputs):
    """Print how long the compiled function takes and how much longer the same in torch."""
    difference = (compiled(*inputs) - plain(*inputs)).abs().max().item()

    @torch.no_grad()
    def forward(function):
        function(*inputs)

    def both(function):
        torch.autograd.grad(function(*inputs).sum(), inputs)

    print(f"{name}, largest difference {difference:.0e}")
    for what, run in (("forward", forward), ("with backward", both)):
        ours, theirs = by_turns([partial(run, function) for function in (compiled, plain)])
        print(f"    {what}: {1000 * ours:.0f} ms, plain torch {theirs / ours:.1f} times as long")


def compare_layers(name, videos, frames, inner):
    """Compare what a scan's layer does along time with the same in torch."""
    shape = f"{name} (B {videos}, T {frames}, E {inner})"
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=draw).requires_grad_()

    u, pace, gate = (normal(videos, frames, inner) for _ in range(3))
    write, read = (normal(videos, frames, STATE) for _ in range(2))
    rate = (-normal(inner, STATE).exp()).detach().requires_grad_()
    inputs = [u, pace, rate, write, read, normal(inner), gate]
    compare(f"scan, {shape}", gated_scan, plain_gated_scan, inputs)
    inputs = [u, normal(TAPS, inner), normal(inner)]
    compare(f"convolution, {shape}", causal_convolution, plain_convolution, inputs)


# ---- the models ----------------------------------------------------------------------------------


def training_step(model, batch):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], fused=True)

    def step():
        optimizer.zero_grad()
        sum(model.train().losses(batch).values()).backward()
        optimizer.step()

    return step


def encoding(model, frames):
    @torch.inference_mode()
    def encode():
        model.eval().encode(frames)

    return encode


def multiply_adds(model, frames):
    """Multiply-adds to encode one video, in millions."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval().encode(frames[:1])
    inside = counter.get_total_flops() / 2
    scans = [layer for layer in model.encoder.modules() if isinstance(layer, Scan)]
    ways = 2 * len(scans) if getattr(model.config, "shared_directions", False) else len(scans)
    inner = 2 * model.config.hidden_dim
    return (inside + ways * frames.shape[1] * inner * STATE * 4) / 1e6


def compare_models():
    torch.manual_seed(0)
    s5vh, conmh = S5VH(S5VH.Config()), ConMH(ConMH.Config())
    c, draw = s5vh.config, torch.Generator().manual_seed(0)
    frames = torch.rand(BATCH, c.num_frames, c.feature_dim, generator=draw)
    masked = draw_masks(BATCH, c, draw)
    s5vh.soft_labels = torch.rand(BATCH, c.num_clusters).softmax(1)
    batch = {"frames": frames, "masked": masked, "videos": torch.arange(BATCH)}
    warm = by_turns(
        [
            training_step(s5vh, batch),
            training_step(conmh, batch),
            encoding(s5vh, frames),
            encoding(conmh, frames),
        ]
    )
    s5vh.on_epoch(c.warm_up_epochs)
    (later,) = by_turns([training_step(s5vh, batch)])
    for name, step, encode, model in (
        ("S5VH", warm[0], warm[2], s5vh),
        ("ConMH", warm[1], warm[3], conmh),
    ):
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
        print(
            f"{name} small: training {BATCH / step:.1f} videos a second, encoding "
            f"{BATCH / encode:.1f}; {multiply_adds(model, frames):.0f} M multiply-adds a video, "
            f"{parameters:.2f} M parameters"
        )
    print(
        f"S5VH after the warm-up, with soft labels that move: {BATCH / later:.1f} videos a second"
    )
    print(f"S5VH beside ConMH: training {warm[1] / warm[0]:.2f}, encoding {warm[3] / warm[2]:.2f}")


def main():
    print(f"{torch.get_num_threads()} threads, seconds of {CLOCK.__name__}")
    compare_layers("a view of the encoder", 2 * BATCH, 7, 512)
    compare_layers("the encoder when it encodes", BATCH, 25, 512)
    compare_layers("the decoder", 2 * BATCH, 25, 384)
    compare_models()


if __name__ == "__main__":
    main()
