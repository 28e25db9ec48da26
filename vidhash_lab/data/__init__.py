"""Data sets: HDF5 feature files, the built-in digit stories, and the catalog that opens them."""

from vidhash_lab.data.catalog import cache_folder, open_dataset
from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.data.files import DataError
from vidhash_lab.data.released.export import export

__all__ = ["DataError", "FeatureSet", "VideoDataset", "cache_folder", "export", "open_dataset"]
