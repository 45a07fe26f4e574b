"""Exports: a collection's images with their vectors as files, written page by page and read from any row on.

The files say by themselves what they are: which model made the vectors, how they are compared, and how many there are.
Nothing here knows jobs or Milvus; numpy and pyarrow are imported where they are used.
"""

from lookalike.exports.header import ExportHeader
from lookalike.exports.reading import ExportFile, ExportReader
from lookalike.exports.rows import ExportedRow, stored_image, usable_vector

__all__ = [
    "ExportFile",
    "ExportHeader",
    "ExportReader",
    "ExportedRow",
    "stored_image",
    "usable_vector",
]
