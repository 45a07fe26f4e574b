"""From records to responses: links, addresses of pictures, and headers that tell a client when to come back."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from flask import Response
from pydantic import BaseModel

from lookalike.records import Image, JobKind, JobRecord, JobState
from lookalike.vectorstore import StoredImage
from lookalike_web.openapi import JSON

POLL_AFTER_S: Final = 1


def json_response(body: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a record."""
    return Response(body.model_dump_json(), status=status, mimetype=JSON, headers=headers and dict(headers))


def job_response(record: JobRecord, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a job; says when to ask again where it is not final."""
    answer = json_response(present_job(record), status=status, headers=headers)
    if not record.state.final:
        answer.headers["Retry-After"] = str(POLL_AFTER_S)
    return answer


def job_url(job_id: str) -> str:
    """Return the address of a job."""
    return f"/v1/jobs/{job_id}"


def present_job(record: JobRecord) -> JobRecord:
    """Return a job with its links, and its hits with the addresses of their thumbnails."""
    is_search = record.kind is JobKind.SEARCH
    result = record.result and (_with_thumbnails(record.result) if is_search else record.result)
    return record.model_copy(update={"links": _links(record), "result": result})


def _links(record: JobRecord) -> dict[str, str]:
    """Name what can be done with a job as it stands."""
    url = job_url(record.id)
    ingest = record.kind is JobKind.INGEST
    live = not record.state.final
    lasting = live and record.kind is not JobKind.SEARCH and not record.cancel_requested
    possible = {
        "events": live,
        "cancel": live and not record.cancel_requested,
        "pause": lasting and not record.paused,
        "resume": lasting and record.paused,
        "failures": record.kind is not JobKind.SEARCH and record.progress.failed > 0,
        "retry": ingest and not live and record.progress.failed > 0,
    }
    links = {"self": url} | {name: f"{url}/{name}" for name, there in possible.items() if there}
    if record.kind.in_steps:
        links["files"] = f"{url}/files"
    if record.kind is JobKind.SEARCH and record.state is JobState.SUCCEEDED:
        links["figure"] = f"{url}/figure.png"
    return links


def present_image(image: StoredImage, *, collection: str) -> Image:
    """Return a stored image as clients see it, with the addresses of its pictures."""
    return Image(
        id=image.id,
        uri=image.uri,
        name=image.name,
        sha256=image.sha256,
        size=image.size,
        width=image.width,
        height=image.height,
        duplicate_of=image.duplicate_of,
        metadata=image.metadata,
        thumbnail_url=thumbnail_url(image.id, image.sha256, collection),
        content_url=f"/v1/images/{image.id}/content?collection={quote(collection)}",
    )


def thumbnail_url(image_id: str, sha256: str, collection: str) -> str:
    """Return the address of a thumbnail; its version lets browsers keep it, as other content has another address."""
    return f"/v1/images/{image_id}/thumbnail?collection={quote(collection)}&v={sha256[:16]}"


def _with_thumbnails(result: Mapping[str, Any]) -> dict[str, Any]:
    def hit(found: Mapping[str, Any]) -> dict[str, Any]:
        return {**found, "thumbnail_url": thumbnail_url(found["id"], found["sha256"], result["collection"])}

    return {
        **result,
        "queries": [{**answer, "hits": [hit(found) for found in answer["hits"]]} for answer in result["queries"]],
    }
