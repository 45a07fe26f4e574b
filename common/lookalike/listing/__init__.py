"""Listing: the images of a source, lazily, in one order, and resumable at any of them.

It stands between a request and the planner, which compares what is listed with the collection. A cursor is a place in a
source's order, so a listing goes on from it in another process. Memory is bounded whatever the source's size.
"""

from lookalike.listing.folder import FolderOptions, list_folder, walk_folder
from lookalike.listing.listed import IMAGE_SUFFIXES, Listed
from lookalike.listing.lister import Lister
from lookalike.listing.members import Limits

__all__ = ["IMAGE_SUFFIXES", "FolderOptions", "Limits", "Listed", "Lister", "list_folder", "walk_folder"]
