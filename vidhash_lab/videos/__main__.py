"""Extract a folder of videos from the command line; `vidhash_lab.videos.extraction` does the work.

    python -m vidhash_lab.videos FOLDER OUT.h5 --backbone torchvision:resnet50 --labels folders

Stop it when you like and start it again: it goes on where it was.
"""

import argparse
from pathlib import Path

from vidhash_lab.videos.backbones import open_backbone
from vidhash_lab.videos.extraction import SAMPLES, extract
from vidhash_lab.videos.model_folders import OUTPUTS


def main(arguments: list[str] | None = None) -> None:
    """Extract a folder from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num-frames", type=int, default=25, help="rows of features a video")
    parser.add_argument("--backbone", default="torchvision:resnet50")
    parser.add_argument("--output", choices=OUTPUTS, help="what is taken of a transformers model")
    parser.add_argument("--sample", choices=SAMPLES, default="uniform")
    parser.add_argument("--labels", help="'folders', or a CSV file with columns video and label")
    parser.add_argument("--thumbnails", type=int, default=64)
    parser.add_argument("--num-views", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard", type=int, nargs=2, metavar=("I", "N"), help="one part")
    parser.add_argument("--retry-skipped", action="store_true", help="read skipped files again")
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
