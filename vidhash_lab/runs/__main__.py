"""`python -m vidhash_lab.runs`: see `vidhash_lab.runs.command_line`."""

import sys

from vidhash_lab.runs.command_line import main

if __name__ == "__main__":
    sys.exit(main())
