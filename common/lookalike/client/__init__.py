"""The Python client of a lookalike service."""

from lookalike.client.asynchronous import AsyncClient, AsyncJob
from lookalike.client.bulk import BulkSearchOptions
from lookalike.client.client import Client, OnJob
from lookalike.client.ingest import Upload
from lookalike.client.job import Job, JobGroup, OnProgress
from lookalike.client.order import IngestOptions
from lookalike.client.parts import Picture
from lookalike.client.results import IngestSummary
from lookalike.client.search import SearchOptions

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "BulkSearchOptions",
    "Client",
    "IngestOptions",
    "IngestSummary",
    "Job",
    "JobGroup",
    "OnJob",
    "OnProgress",
    "Picture",
    "SearchOptions",
    "Upload",
]
