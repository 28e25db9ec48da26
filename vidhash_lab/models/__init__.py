"""The methods, one a file, and the name under which a checkpoint remembers each."""

from vidhash_lab.models.autossvh import AutoSSVH, AutoSSVHConfig
from vidhash_lab.models.baselines import ITQ, LSH, PCAH
from vidhash_lab.models.bth import BTH, BTHConfig
from vidhash_lab.models.chain import CHAIN, CHAINConfig
from vidhash_lab.models.conmh import ConMH, ConMHConfig
from vidhash_lab.models.hasher import VideoHasher
from vidhash_lab.models.mcmsh import MCMSH, MCMSHConfig
from vidhash_lab.models.s5vh import S5VH, S5VHConfig

METHODS = {
    "conmh": ConMH,
    "chain": CHAIN,
    "mcmsh": MCMSH,
    "bth": BTH,
    "s5vh": S5VH,
    "autossvh": AutoSSVH,
    "lsh": LSH,
    "pcah": PCAH,
    "itq": ITQ,
}
