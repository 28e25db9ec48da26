"""Data sets: HDF5 feature files, the built-in digit stories, and the catalog that opens them."""

from vidhash_lab.data.backbones import Backbone, open_backbone
from vidhash_lab.data.catalog import cache_folder, open_dataset
from vidhash_lab.data.export import export
from vidhash_lab.data.extraction import Report, extract
from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.data.rows import DataError, prefetch, written_whole
from vidhash_lab.data.writing import write_variants, write_video

__all__ = [
    "Backbone",
    "DataError",
    "FeatureSet",
    "Report",
    "VideoDataset",
    "cache_folder",
    "export",
    "extract",
    "open_backbone",
    "open_dataset",
    "prefetch",
    "write_variants",
    "write_video",
    "written_whole",
]
