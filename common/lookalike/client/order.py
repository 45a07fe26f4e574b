"""What an ingest asks for, apart from where the images are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from json import dumps
from typing import Any, Final, Self, TypedDict

from lookalike.records import Metadata, Priority

#: Fields of an ingest request that are left out where they say what is the case anyway.
_FLAGS: Final = ("label_from_folder", "checksum", "sync", "dry_run")


class IngestOptions(TypedDict, total=False):
    """The options of an ingest, each by its name."""

    collection: str | None  #: Where the images go; None is the service's default.
    metadata: Metadata | None  #: Stored with every image.
    include: Sequence[str]  #: Globs on names, or on paths below the folder where they hold a `/`.
    exclude: Sequence[str]  #: The same; they win over `include`.
    recursive: bool  #: Whether folders inside a folder are taken, too; they are by default.
    hidden: bool  #: Whether names that begin with a dot are taken.
    symlinks: bool  #: Whether the service follows links, as long as they lead to something under its roots.
    label_from_folder: bool  #: Store the name of the folder an image lies in as its metadata field `label`.
    checksum: bool  #: Tell changed files by their content instead of by size and time.
    sync: bool  #: Also remove what is gone from the folder or prefix, and recognise what was moved within it.
    dry_run: bool  #: Store nothing: the progress says what would be done.
    priority: Priority | str  #: `low`, `normal` or `high`.
    webhook: str | None  #: An address that is sent the job's record once it is final.


@dataclass(frozen=True, kw_only=True)
class Order:
    """The same, complete."""

    collection: str | None = None
    metadata: Metadata = field(default_factory=dict)
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    recursive: bool = True
    hidden: bool = False
    symlinks: bool = False
    label_from_folder: bool = False
    checksum: bool = False
    sync: bool = False
    dry_run: bool = False
    priority: Priority = Priority.NORMAL
    webhook: str | None = None

    @classmethod
    def of(cls, options: IngestOptions, *, collection: str | None) -> Self:
        """Complete the options; `collection` is where images go that name none."""
        unknown = sorted(set(options) - {one.name for one in fields(cls)})
        if unknown:
            raise TypeError(f"an ingest has no option {unknown[0]!r}")
        lone = next((name for name in ("include", "exclude") if isinstance(options.get(name), str)), None)
        if lone:  # A text is a sequence, too: of its letters.
            raise TypeError(f"{lone} is a list of globs, as in {lone}=[{options[lone]!r}]")  # type: ignore[literal-required]
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return cls(**{"collection": collection, **given, "priority": Priority(given.get("priority", "normal"))})

    @property
    def needs_place(self) -> bool:
        """True where the service has to read the source itself: it compares the collection with it."""
        return self.sync or self.dry_run

    def narrowed(self) -> dict[str, Any]:
        """Return how a folder or prefix is narrowed, in the fields of a source."""
        return {"recursive": self.recursive, "include": list(self.include), "exclude": list(self.exclude)}

    def body(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON body of the request for a source."""
        return {"source": dict(source), "metadata": self.metadata, **self._common()}

    def form(self) -> dict[str, str]:
        """Return the form fields of a multipart request."""
        common = {name: value if isinstance(value, str) else dumps(value) for name, value in self._common().items()}
        return {**common, "metadata": dumps(self.metadata)}

    def _common(self) -> dict[str, Any]:
        said: dict[str, Any] = {name: True for name in _FLAGS if getattr(self, name)}
        if self.collection is not None:
            said["collection"] = self.collection
        if self.priority is not Priority.NORMAL:
            said["priority"] = str(self.priority)
        if self.webhook is not None:
            said["webhook"] = {"url": self.webhook}
        return said
