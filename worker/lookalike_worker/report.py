"""The report of an evaluation for people: its worst cases as pictures, one HTML file that needs nothing else."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.errors import ImageError, SourceUnavailable
from lookalike_worker.context import Context
from lookalike_worker.keeping import result_of

REPORT: Final = "report.html"
_SIDE_PX: Final = 160
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1f2328;background:#fbfaf7}
h1{font-size:1.4rem}h2{font-size:1rem;margin:0 0 .5rem}
section{border-top:1px solid #d9d5cb;padding:1rem 0}
.row{display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start}
figure{margin:0;width:160px}img,.none{width:160px;height:160px;object-fit:contain;background:#efede7}
.none{display:flex;align-items:center;justify-content:center;color:#5b626b}
figcaption{font-size:12px;overflow-wrap:anywhere}.asked{border-right:2px solid #c8502d;padding-right:12px}
.right img{outline:3px solid #2e7d32}
@media(prefers-color-scheme:dark){body{color:#e6e3dc;background:#1b1d20}img,.none{background:#2a2d31}}
"""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A query that did badly: what was asked, and what came. A picture is a stored image's URI, or pixels."""

    title: str
    asked: Sequence[tuple[str | Pixels, str]]  #: Pictures with their captions.
    hits: Sequence[tuple[str, str, bool]]  #: URI, caption, and whether it is a right one; closest first.


def write_report(context: Context, job_id: str, title: str, cases: Sequence[Case], keep: Callable[[], None]) -> None:
    """Leave `report.html` with the worst cases; an image whose file is gone is drawn as a blank."""
    thumbnails: dict[str, bytes | None] = {}

    def pictured(picture: str | Pixels) -> bytes | None:
        if not isinstance(picture, str):
            return webp(picture)
        if picture not in thumbnails:
            thumbnails[picture] = _thumbnail(context, picture, keep)
        return thumbnails[picture]

    sections = []
    for case in cases:
        keep()
        asked = "".join(_figure(pictured(picture), caption, "asked") for picture, caption in case.asked)
        hits = "".join(_figure(pictured(uri), text, "right" if good else "") for uri, text, good in case.hits)
        sections.append(f'<section><h2>{escape(case.title)}</h2><div class="row">{asked}{hits}</div></section>')
    body = "".join(sections) or "<p>Nothing went wrong.</p>"
    legend = (
        "<p>Left of the line what was asked, right of it what came, closest first; what is right has a green rim.</p>"
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{legend}{body}</body></html>"
    )
    context.artifacts.write(job_id, REPORT, page.encode())


def webp(pixels: Pixels) -> bytes:
    """Encode pixels, (height, width, 3) RGB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def readable(context: Context, uri: str, keep: Callable[[], None]) -> str:
    """Return the URI that decoders read an image by: its own, or that of the copy of a remote one."""
    return result_of(context.remote.fetch(uri), keep).uri if context.remote.is_remote(uri) else uri


def _thumbnail(context: Context, uri: str, keep: Callable[[], None]) -> bytes | None:
    try:
        future = context.decoders.thumbnail(readable(context, uri, keep), longer_side_px=_SIDE_PX)
        return result_of(future, keep)
    except (ImageError, SourceUnavailable):
        return None


def _figure(picture: bytes | None, caption: str, kind: str) -> str:
    text = escape(caption)
    if picture is None:
        shown = '<div class="none">no picture</div>'
    else:
        data = base64.b64encode(picture).decode()
        shown = f'<img alt="{text}" src="data:image/webp;base64,{data}">'
    return f'<figure class="{kind}">{shown}<figcaption>{text}</figcaption></figure>'
