"""The files of a duplicates job: its clusters as JSON lines and as CSV, and the first of them as a contact sheet."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

import numpy as np

from lookalike.contact_sheet import MAX_GROUPS, MAX_PICTURES, SheetGroup, SheetPicture, draw_contact_sheet
from lookalike.records import DuplicateLevel, DuplicatesRequest, Metric
from lookalike.spreadsheet import cell
from lookalike.vectorstore import StoredImage
from lookalike_worker.context import Context
from lookalike_worker.hamming import distances
from lookalike_worker.steps.duplicates_keeping import Clusters
from lookalike_worker.steps.duplicates_state import Array, image_ids
from lookalike_worker.thumbnails import awaited, begin_thumbnail

LINES: Final = "clusters.jsonl"
TABLE: Final = "clusters.csv"
SHEET: Final = "sheet.png"
_FIELDS: Final = ("id", "uri", "name", "width", "height", "size", "distance")


@dataclass(frozen=True)
class Found:
    """What a job has found."""

    context: Context
    job_id: str
    request: DuplicatesRequest
    rows: Array
    clusters: Clusters


def write_page(found: Found, begin: int, count: int) -> None:
    """Write a page of members as a part of both files. A cluster may begin and end in different parts."""
    clusters = found.clusters
    images = _described(found, begin, count)
    lines, table = io.StringIO(), io.StringIO()
    writer = csv.writer(table)
    if not begin:
        writer.writerow(("cluster", "keep", *_FIELDS))
    for place, (cluster, image) in enumerate(zip(clusters.of(begin, count).tolist(), images, strict=True), begin):
        is_keeper = place == clusters.starts[cluster]
        if is_keeper:
            keeper = {"keep": image["id"], "why": clusters.why(cluster)}
            lines.write(json.dumps(keeper, ensure_ascii=False)[:-1] + ', "images": [')
        lines.write(("" if is_keeper else ", ") + json.dumps(image, ensure_ascii=False))
        if place + 1 == clusters.starts[cluster + 1]:
            lines.write("]}\n")
        writer.writerow([cluster + 1, "yes" if is_keeper else "no", *(cell(image[field]) for field in _FIELDS)])
    found.context.artifacts.write(found.job_id, LINES, lines.getvalue().encode(), part=begin)
    found.context.artifacts.write(found.job_id, TABLE, table.getvalue().encode(), part=begin)


def _described(found: Found, begin: int, count: int) -> list[dict[str, Any]]:
    rows, clusters = found.rows, found.clusters
    members = clusters.members[begin : begin + count]
    keepers = clusters.members[clusters.starts[clusters.of(begin, count)]]
    ids = image_ids(rows[members])
    stored = found.context.vectors.known(found.request.collection, ids)
    away = _distances(found, members, keepers)
    return [_image(image_id, stored.get(image_id), distance) for image_id, distance in zip(ids, away, strict=True)]


def _image(image_id: str, image: StoredImage | None, distance: float | None) -> dict[str, Any]:
    if image is None:  # It was deleted since it was looked at.
        return {"id": image_id, "uri": "", "name": "", "width": 0, "height": 0, "size": 0, "distance": distance}
    own = {field: getattr(image, field) for field in _FIELDS if field not in {"name", "distance"}}
    return {**own, "name": _name(image), "distance": distance}


def _distances(found: Found, members: Array, keepers: Array) -> list[float | None]:
    """Return how far each member is from its keeper: in bits, or as the collection's metric has it."""
    context, request, rows = found.context, found.request, found.rows
    match request.level:
        case DuplicateLevel.CONTENT:
            return [0] * len(members)
        case DuplicateLevel.PICTURE:
            return list(distances(rows["hash"][members], rows["hash"][keepers]).tolist())
    metric = context.vectors.collection(request.collection).metric
    ids, kept = image_ids(rows[members]), image_ids(rows[keepers])
    vectors = context.vectors.vectors(request.collection, [*ids, *kept])
    return [
        _distance(vectors[one].astype(np.float64), vectors[other].astype(np.float64), metric)
        if one in vectors and other in vectors
        else None
        for one, other in zip(ids, kept, strict=True)
    ]


def _distance(one: Array, other: Array, metric: Metric) -> float:
    match metric:
        case Metric.L2:
            return round(float(((one - other) ** 2).sum()), 6)
        case Metric.IP:
            return round(float(one @ other), 6)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return round(float(one @ other) / lengths, 6) if lengths else 0.0


def write_sheet(found: Found, keep: Callable[[], None]) -> None:
    """Draw the first clusters, with the first of their images. A picture that is gone leaves its place blank."""
    context, request, clusters = found.context, found.request, found.clusters
    total = len(clusters.starts) - 1
    spans = [(int(start), int(clusters.starts[number + 1])) for number, start in enumerate(clusters.starts[:-1])]
    shown = spans[:MAX_GROUPS]
    groups: list[SheetGroup] = []
    for number, (start, end) in enumerate(shown):
        keep()
        count = min(end - start, MAX_PICTURES)
        images = _described(found, start, count)
        thumbnails = [begin_thumbnail(context, image["uri"]) for image in images]
        pictures = [
            SheetPicture(_label(image, request, place), awaited(future, keep), marked=place == 0)
            for place, (image, future) in enumerate(zip(images, thumbnails, strict=True))
        ]
        heading = f"Cluster {number + 1}: {end - start} images; to be kept: {clusters.why(number)}"
        groups.append(SheetGroup(heading, pictures, left_out=end - start - count))
    title = f"{request.collection}: {total} clusters of duplicates, by {request.level.value}"
    sheet = draw_contact_sheet(groups, title=title, left_out=total - len(shown))
    context.artifacts.write(found.job_id, SHEET, sheet)


def _label(image: dict[str, Any], request: DuplicatesRequest, place: int) -> str:
    size = f"{image['width']} x {image['height']}"
    unit = " bits" if request.level is DuplicateLevel.PICTURE else ""
    away = "keep" if place == 0 else "" if image["distance"] is None else f"{image['distance']:.4g}{unit}"
    if request.level is DuplicateLevel.CONTENT and place:
        away = "same bytes"
    return f"{image['name'] or image['id']}\n{size}, {away}"


def _name(image: StoredImage) -> str:
    return image.name or PurePosixPath(unquote(image.uri)).name
