"""Describe every film of a folder by the features of a backbone, in one HDF5 file.

    vidhash extract FOLDER OUT.h5 --backbone torchvision:resnet50 --labels folders

Stop it when you like and start it again: it goes on where it was. A film that cannot be read is
named at the end and stops nothing. torchvision and timm are libraries of their own to install.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vidhash_lab.videos.backbones import open_backbone
from vidhash_lab.videos.extraction import SAMPLES, extract
from vidhash_lab.videos.model_folders import OUTPUTS

BACKBONE = """what describes a frame: torchvision:NAME or timm:NAME, the folder of a transformers
model, a TorchScript or ONNX file; torchvision and timm fetch weights that are not on this disk"""
SAMPLE = "uniform: spread evenly over a film's time; shots: every shot has its share"
SHARD = "only the I-th of N equal parts, I from 0 on: one for each of N processes or machines"


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Extract a folder from the command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, help="the films, in it and in the folders in it")
    add("out", type=Path, help="the HDF5 file to write or to go on with")
    add("--num-frames", type=int, default=25, help="rows of features a film (25)")
    add("--backbone", default="torchvision:resnet50", help=BACKBONE)
    add("--output", choices=OUTPUTS, help="what is taken of a transformers model")
    add("--sample", choices=SAMPLES, default="uniform", help=SAMPLE)
    add("--labels", help="'folders', or a CSV file with columns video and label")
    add("--thumbnails", type=int, default=64, help="pixels a side of the stored pictures (64)")
    add("--num-views", type=int, default=0, help="augmented renderings a film, for CHAIN (0)")
    add("--seed", type=int, default=0, help="of the augmentations")
    add("--shard", type=int, nargs=2, metavar=("I", "N"), help=SHARD)
    add("--retry-skipped", action="store_true", help="read files again that were skipped before")
    options = vars(parser.parse_args(arguments))
    output, options["shard"] = options.pop("output"), options["shard"] and tuple(options["shard"])
    try:
        if output:
            options["backbone"] = open_backbone(options["backbone"], output=output)
        print(extract(**options))
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
