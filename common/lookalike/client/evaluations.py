"""Evaluations of collections, maps of them, and what follows from both: another index."""

from collections.abc import Mapping
from typing import Any, Literal, overload
from urllib.parse import quote

from lookalike.client.connection import Connection
from lookalike.client.job import Job, submit_job
from lookalike.records import EvaluationResult, EvaluationType, IndexKind, MapResult, ReindexResult


class Evaluations:
    """How good a service's collections are. Each method waits, unless `wait=False`, which returns the job."""

    def __init__(self, connection: Connection, collection: str | None) -> None:
        self._connection = connection
        self._collection = collection

    @overload
    def run(
        self,
        type: EvaluationType | str,
        *,
        collection: str | None = ...,
        pass_mark: Mapping[str, float] | None = ...,
        wait: Literal[True] = ...,
        **fields: Any,
    ) -> EvaluationResult: ...

    @overload
    def run(
        self,
        type: EvaluationType | str,
        *,
        collection: str | None = ...,
        pass_mark: Mapping[str, float] | None = ...,
        wait: Literal[False],
        **fields: Any,
    ) -> Job: ...

    def run(
        self,
        type: EvaluationType | str,
        *,
        collection: str | None = None,
        pass_mark: Mapping[str, float] | None = None,
        wait: bool = True,
        **fields: Any,
    ) -> EvaluationResult | Job:
        """Evaluate a collection: `recall`, `labels` or `robustness`; `fields` are those of `EvaluationRequest`.

        The job's files are `report.json` and, but of `recall`, `report.html` with pictures of the worst cases.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        body = {"type": str(type), **given, **({"pass_mark": dict(pass_mark)} if pass_mark else {})}
        job = submit_job(self._connection, "/v1/evaluations", self._named(body, collection))
        return job.step_result(EvaluationResult) if wait and job.wait() else job

    @overload
    def map(
        self, *, collection: str | None = ..., limit: int = ..., seed: int = ..., wait: Literal[True] = ...
    ) -> MapResult: ...

    @overload
    def map(self, *, collection: str | None = ..., limit: int = ..., seed: int = ..., wait: Literal[False]) -> Job: ...

    def map(
        self, *, collection: str | None = None, limit: int = 5_000, seed: int = 0, wait: bool = True
    ) -> MapResult | Job:
        """Lay a sample of a collection out in a plane; the points are the job's file `map.json`."""
        job = submit_job(self._connection, "/v1/maps", self._named({"limit": limit, "seed": seed}, collection))
        return job.step_result(MapResult) if wait and job.wait() else job

    @overload
    def reindex(
        self,
        name: str,
        *,
        index: IndexKind | str | None = ...,
        build: Mapping[str, int] | None = ...,
        search: Mapping[str, int] | None = ...,
        offline: bool = ...,
        wait: Literal[True] = ...,
    ) -> ReindexResult: ...

    @overload
    def reindex(
        self,
        name: str,
        *,
        index: IndexKind | str | None = ...,
        build: Mapping[str, int] | None = ...,
        search: Mapping[str, int] | None = ...,
        offline: bool = ...,
        wait: Literal[False],
    ) -> Job: ...

    def reindex(
        self,
        name: str,
        *,
        index: IndexKind | str | None = None,
        build: Mapping[str, int] | None = None,
        search: Mapping[str, int] | None = None,
        offline: bool = False,
        wait: bool = True,
    ) -> ReindexResult | Job:
        """Give a collection another index, or other parameters; what is left out stays. Raises `InvalidParameter`."""
        asked = {"index": index and str(index), "build": build and dict(build), "search": search and dict(search)}
        body = {field: value for field, value in asked.items() if value is not None}
        path = f"/v1/collections/{quote(name, safe='')}/reindex"
        job = submit_job(self._connection, path, {**body, "offline": offline})
        return job.step_result(ReindexResult) if wait and job.wait() else job

    def _named(self, body: dict[str, Any], collection: str | None) -> dict[str, Any]:
        named = collection or self._collection
        return {**body, **({"collection": named} if named else {})}
