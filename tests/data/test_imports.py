"""Opening a feature file does not import what only videos, training or plots need."""

import subprocess
import sys

HEAVY = "av kornia faiss sklearn lightning_fabric scipy.io pandas matplotlib"

PROGRAM = f"""
import sys
import vidhash_lab.data
from vidhash_lab.data.catalog import open_dataset
open_dataset(sys.argv[1]).train.rows([0])
print([name for name in {HEAVY.split()} if name in sys.modules])
"""


def test_opening_a_feature_file_imports_little(random_features):
    command = [sys.executable, "-c", PROGRAM, str(random_features())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
