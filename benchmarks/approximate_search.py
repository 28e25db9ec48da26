"""Approximate search beside exact search: many codes of a trained model, milliseconds and recall.

    python benchmarks/approximate_search.py --codes 1000000 --drawn 50000 --epochs 15

A ConMH of 64 bits is trained on the digit stories. The database are codes of videos that it has not
seen: `--drawn` new ones, drawn and rendered by the data set's own generator from the handwriting of
the training set, and enlarged to `--codes` by encoding each of them many times: each time T of its
frames are drawn with replacement and shown in order, so that shots grow, shrink and repeat, and
Gaussian noise of a quarter of the features' deviation is added to every feature above 0. Each
version goes through the model; no code is made of another code. The queries are the data set's own,
in handwriting of other people.

A line a number of probes: milliseconds for 100 queries, the exact search's in the same rounds (the
best of 15, so that what else runs on the machine counts little), their ratio, and `recall` at
`--k`, by distance, over all 500 queries. `OMP_NUM_THREADS=1` measures one thread. A thread encodes
about a thousand videos a second; with `--keep codes.npz` they are read from there the next time.
"""

import argparse
import time
from pathlib import Path

import faiss
import numpy as np
import torch
from tqdm.auto import tqdm

from vidhash_lab import ConMH, HammingIndex, encode, fit, open_dataset, pack
from vidhash_lab.data.stories.digit_stories import (
    CHUNK,
    DigitStoriesConfig,
    draw_script,
    render,
    seeded_generator,
    stories,
)
from vidhash_lab.data.stories.handwriting import handwriting_pools
from vidhash_lab.data.stories.network import digit_features

SIZES = {"hidden_dim": 128, "depth": 2, "heads": 4, "decoder_dim": 96}
RECIPE = {"batch_size": 128, "learning_rate": 3e-3, "schedule": "one-cycle"}
NOISE, QUERIES, ROUNDS, WANTED = 0.25, 100, 15, 0.99


def drawn_videos(count):
    """Features of new videos, a chunk (B, T, D) at a time, of all stories in turn."""
    config = DigitStoriesConfig()
    generator, told = seeded_generator(config, "approximate search"), stories(config)
    for start in range(0, count, CHUNK):
        digits = told[torch.arange(start, min(start + CHUNK, count)) % len(told)]
        pool = handwriting_pools()["train"]
        script = draw_script(digits, config.num_frames, pool, config, generator)
        thumbnails = render(script, config, generator).mul_(255).round_()
        yield digit_features(thumbnails / 255)


def another_version(frames, generator):
    """The same videos (B, T, D), their frames drawn anew with replacement, in order, and noisy."""
    B, T, _ = frames.shape
    times = torch.randint(T, (B, T), generator=generator).sort(1).values
    frames = frames[torch.arange(B)[:, None], times]
    noise = NOISE * frames.std() * torch.randn(frames.shape, generator=generator)
    return torch.where(frames > 0, frames + noise, frames).clamp_(0)


@torch.inference_mode()
def many_codes(model, count, drawn):
    """Codes (count, K/8) of `drawn` new videos, each in as many versions as it takes."""
    generator, codes = torch.Generator().manual_seed(0), []
    chunks = -(-drawn // CHUNK)
    for number, frames in enumerate(tqdm(drawn_videos(drawn), "encoding", chunks, leave=False)):
        wanted = count * (number + 1) // chunks - sum(map(len, codes))
        while wanted > 0:
            codes.append(pack(model.encode(another_version(frames, generator)))[:wanted])
            wanted -= len(codes[-1])
    return np.concatenate(codes)


def codes_to_search(count, drawn, epochs):
    """Train a model -> codes of the database and of the queries."""
    data = open_dataset("digit-stories")
    model = ConMH.for_dataset(data, bits=64, **SIZES)
    fit(model, data.train, epochs=epochs, **RECIPE)
    return many_codes(model.eval(), count, drawn), encode(model, data.query)


def paired_milliseconds(one, other):
    """Least milliseconds of two functions, called in turn after one call each to warm up."""
    times = [], []
    for _ in range(ROUNDS + 1):
        for function, its_times in zip((one, other), times):
            start = time.perf_counter()
            function()
            its_times.append(1000 * (time.perf_counter() - start))
    return [min(its_times[1:]) for its_times in times]


def main():
    """Print the codes' facts, then a line for 1, 2, 4, … probes until nothing is lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--drawn", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--lists", type=int, help="default: about the root of the codes")
    parser.add_argument("--keep", type=Path, help="a .npz file for the codes")
    sizes = parser.parse_args()
    if sizes.keep and sizes.keep.exists():
        codes, queries = np.load(sizes.keep).values()
    else:
        codes, queries = codes_to_search(sizes.codes, sizes.drawn, sizes.epochs)
        if sizes.keep:
            np.savez(sizes.keep, codes=codes, queries=queries)
    print(f"{len(codes)} codes, {len(np.unique(codes, axis=0))} of them different")
    lists = sizes.lists or 2 ** round(np.log2(len(codes)) / 2)
    exact, start = HammingIndex(codes), time.perf_counter()
    index = HammingIndex(codes, lists=lists, probes=1)
    print(f"{lists} lists built in {time.perf_counter() - start:.1f} s; ", end="")
    print(f"k {sizes.k}, {QUERIES} queries, {faiss.omp_get_max_threads()} threads")
    asked, recall = queries[:QUERIES], 0
    while recall < 1 and index.probes < lists:
        recall = index.recall(queries, sizes.k)
        flat, ours = paired_milliseconds(
            lambda: exact.search(asked, sizes.k), lambda: index.search(asked, sizes.k)
        )
        enough = "  <- enough" if recall >= WANTED else ""
        print(
            f"{index.probes:4} probes {ours:7.2f} ms, exact {flat:7.2f} ms, {flat / ours:5.1f} "
            f"times as fast, recall {recall:.4f}{enough}",
            flush=True,
        )
        index.probes = min(2 * index.probes, lists)


if __name__ == "__main__":
    main()
