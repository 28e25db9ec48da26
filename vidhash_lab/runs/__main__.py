"""`python -m vidhash_lab.runs`: see `vidhash_lab.runs.runs`."""

import sys

from vidhash_lab.runs.runs import main

if __name__ == "__main__":
    sys.exit(main())
