"""Examine features and labels before working with them.

    vidhash data features.h5
    vidhash data /data/fcvid

It reads every file once, of your own (`feats` in an HDF5 file) or of FCVID, ActivityNet, YFCC,
UCF101 and HMDB51, and says what is there and whether it can be worked with. Films are no features
yet: `vidhash extract` makes them. The exit code is 1 where something is wrong.
"""

import argparse
import sys
from collections.abc import Sequence

from tqdm.auto import tqdm

from vidhash_lab.data.report import report


def main(arguments: Sequence[str] | None = None, prog: str = "python -m vidhash_lab.data") -> int:
    """Print the report of the folder or file named on the command line -> exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", help="folder of a data set, or of several; or one HDF5 file")
    try:
        return 0 if report(parser.parse_args(arguments).root, say=tqdm.write) else 1
    except KeyboardInterrupt:
        print("interrupted: not everything was read", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
