"""vidhash_lab: a notebook-first research kit for self-supervised video hashing."""

from importlib import import_module

from vidhash_lab.checkpoints import History, load, load_released, save
from vidhash_lab.data.catalog import open_dataset
from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.data.files import DataError
from vidhash_lab.data.released.export import export
from vidhash_lab.installation import about
from vidhash_lab.literature import published
from vidhash_lab.models import METHODS
from vidhash_lab.models.autossvh import AutoSSVH, AutoSSVHConfig
from vidhash_lab.models.baselines import ITQ, LSH, PCAH
from vidhash_lab.models.bth import BTH, BTHConfig
from vidhash_lab.models.chain import CHAIN, CHAINConfig
from vidhash_lab.models.conmh import ConMH, ConMHConfig
from vidhash_lab.models.hasher import VideoHasher
from vidhash_lab.models.mcmsh import MCMSH, MCMSHConfig
from vidhash_lab.models.s5vh import S5VH, S5VHConfig
from vidhash_lab.recipes import published_recipe
from vidhash_lab.retrieval.cluster import ShardedIndex
from vidhash_lab.retrieval.codes import encode, pack, unpack
from vidhash_lab.retrieval.comparison import compare
from vidhash_lab.retrieval.databases import export_codes
from vidhash_lab.retrieval.metrics import Evaluation, evaluate, score
from vidhash_lab.retrieval.probes import twin_probe
from vidhash_lab.retrieval.search import HammingIndex
from vidhash_lab.training import CosineDecay, StepDecay, fit

__all__ = [
    "BTH", "CHAIN", "ITQ", "LSH", "MCMSH", "METHODS", "PCAH", "S5VH", "AutoSSVH", "AutoSSVHConfig",
    "BTHConfig", "CHAINConfig", "ConMH", "ConMHConfig", "CosineDecay", "DataError", "Evaluation",
    "FeatureSet", "HammingIndex", "History", "MCMSHConfig", "S5VHConfig", "ShardedIndex",
    "StepDecay", "VideoDataset", "VideoHasher", "about", "compare", "encode", "evaluate", "export",
    "export_codes", "extract", "fit", "load", "load_released", "near_duplicates", "open_dataset",
    "pack", "published", "published_recipe", "save", "score", "twin_probe", "unpack",
]  # fmt: skip

_VIDEOS = {"extract": "extraction", "near_duplicates": "near_duplicates"}


def __getattr__(name):
    """Import what needs a video decoder when it is asked for: features need none."""
    if name not in _VIDEOS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vidhash_lab.videos.{_VIDEOS[name]}"), name)


def __dir__():
    return __all__
