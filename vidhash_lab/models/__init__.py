"""The methods, one a file, and the name under which a checkpoint remembers each."""

from vidhash_lab.models import baselines
from vidhash_lab.models.baselines import ITQ, LSH, PCAH
from vidhash_lab.models.conmh import ConMH, ConMHConfig

METHODS = {"conmh": ConMH, "lsh": LSH, "pcah": PCAH, "itq": ITQ}

__all__ = ["METHODS", "ConMH", "ConMHConfig", "baselines"]
