"""The methods, one a file, and the name under which a checkpoint remembers each."""

from vidhash_lab.models.autossvh import AutoSSVH, AutoSSVHConfig
from vidhash_lab.models.baselines import ITQ, LSH, PCAH
from vidhash_lab.models.bth import BTH, BTHConfig
from vidhash_lab.models.chain import CHAIN, CHAINConfig
from vidhash_lab.models.conmh import ConMH, ConMHConfig
from vidhash_lab.models.hasher import VideoHasher
from vidhash_lab.models.mcmsh import MCMSH, MCMSHConfig

METHODS = {
    "conmh": ConMH,
    "chain": CHAIN,
    "mcmsh": MCMSH,
    "bth": BTH,
    "autossvh": AutoSSVH,
    "lsh": LSH,
    "pcah": PCAH,
    "itq": ITQ,
}
