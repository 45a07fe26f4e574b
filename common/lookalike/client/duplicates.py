"""What one may say about a duplicates job."""

from typing import Any, TypedDict


class DuplicatesOptions(TypedDict, total=False):
    """Options of `Client.duplicates`; what is left out, or None, is as the service has it."""

    collection: str | None
    level: str  #: `content` (the same bytes), `picture` (recompressed, rescaled) or `near` (by the model).
    max_bits: int | None  #: Of `picture`: how many of the hash's 64 bits may differ.
    max_distance: float | None  #: Of `near`: the farthest distance that counts...
    min_score: float | None  #: ...or the lowest score.
    keep: str  #: `largest`, `oldest`, `newest` or `first` (by address).
    delete: bool  #: Take all but the keepers out of the collection. The files stay.
    dry_run: bool  #: Delete nothing; the result says how many would be.


def duplicates_body(options: DuplicatesOptions, collection: str | None) -> dict[str, Any]:
    """Lay out the request's body; `collection` is the client's own."""
    return {name: value for name, value in {"collection": collection, **options}.items() if value is not None} | (
        {"collection": collection} if collection and options.get("collection") is None else {}
    )
