"""Rows on disk or in memory to a `Dataset`: opening, decoding, checking and splitting."""

from headstart.data.dataset import Dataset, UnlabelledDataset
from headstart.data.findings import Finding
from headstart.data.images import UnreadableImage, decode_image, sniff, thumbnail
from headstart.data.joining import join_datasets
from headstart.data.opening import is_table, open_dataset
from headstart.data.scan import DataCheck, check_dataset
from headstart.data.splits import Split, folds, split_dataset

__all__ = [
    "DataCheck",
    "Dataset",
    "Finding",
    "Split",
    "UnlabelledDataset",
    "UnreadableImage",
    "check_dataset",
    "decode_image",
    "folds",
    "is_table",
    "join_datasets",
    "open_dataset",
    "sniff",
    "split_dataset",
    "thumbnail",
]
