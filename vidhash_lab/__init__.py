"""vidhash_lab: a notebook-first research kit for self-supervised video hashing."""

from vidhash_lab.checkpoints import History, load, load_released, save
from vidhash_lab.data import (
    DataError,
    FeatureSet,
    VideoDataset,
    export,
    open_dataset,
)
from vidhash_lab.models import (
    BTH,
    CHAIN,
    MCMSH,
    METHODS,
    BTHConfig,
    CHAINConfig,
    ConMH,
    ConMHConfig,
    MCMSHConfig,
    baselines,
)
from vidhash_lab.recipes import published_recipe
from vidhash_lab.retrieval.codes import encode, pack, unpack
from vidhash_lab.retrieval.comparison import Comparison, compare
from vidhash_lab.retrieval.metrics import Evaluation, evaluate
from vidhash_lab.retrieval.probes import TwinProbe, twin_probe
from vidhash_lab.retrieval.search import HammingIndex
from vidhash_lab.training import NonFiniteLoss, StepDecay, fit
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.near_duplicates import near_duplicates

__all__ = [
    "BTH",
    "CHAIN",
    "MCMSH",
    "METHODS",
    "BTHConfig",
    "CHAINConfig",
    "Comparison",
    "ConMH",
    "ConMHConfig",
    "DataError",
    "Evaluation",
    "FeatureSet",
    "HammingIndex",
    "History",
    "MCMSHConfig",
    "NonFiniteLoss",
    "StepDecay",
    "TwinProbe",
    "VideoDataset",
    "baselines",
    "compare",
    "encode",
    "evaluate",
    "export",
    "extract",
    "fit",
    "load",
    "load_released",
    "near_duplicates",
    "open_dataset",
    "pack",
    "published_recipe",
    "save",
    "twin_probe",
    "unpack",
]
