"""API keys: what each may be used for, which collections and roots it may name, and how a request's is recognised.

Keys without limits are listed in LOOKALIKE_API_KEYS; those with a name, and with limits where they have any, stand in
LOOKALIKE_KEYS_FILE, by the SHA-256 of each, so that who reads the file has no key. Knows nothing of requests.
"""

import hashlib
import hmac
import tomllib
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from lookalike.errors import Forbidden, InvalidPath, RootNotAllowed, SetupError
from lookalike.records import SHA256, Record
from lookalike.remote.urls import OBJECT_SCHEMES, object_prefix
from lookalike.roots import Roots, file_path
from lookalike.settings import Settings


class Right(StrEnum):
    """What a key may be used for."""

    SEARCH = "search"  #: Search, and see collections, images and their pictures.
    INGEST = "ingest"  #: Upload, ingest, create, export and import collections, change and delete their images.
    ADMIN = "admin"  #: See and steer the jobs of all keys, delete collections, and collect garbage.


_OBJECTS: Final = tuple(f"{scheme}://" for scheme in OBJECT_SCHEMES)


def _checked_root(root: str) -> str:
    try:
        if root.startswith(_OBJECTS):
            return object_prefix(root)
    except InvalidPath as error:
        raise ValueError(error.message) from error
    if not Path(root).is_absolute():
        raise ValueError("a root is an absolute path, or a prefix as s3://bucket/prefix")
    return root


class Key(Record):
    """An API key: one name, up to two secrets at a time, and what may be done with either."""

    name: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._-]{1,64}$")] | None = None
    sha256: tuple[SHA256, ...] = Field((), max_length=2)
    rights: frozenset[Right] = frozenset(Right)
    collections: tuple[str, ...] = ("*",)  #: Names, in which `*` stands for any letters.
    #: Folders and prefixes of object stores, each in one that the service may read; None for all of those.
    roots: tuple[Annotated[str, AfterValidator(_checked_root)], ...] | None = None

    def sees(self, owner: str | None) -> bool:
        """Tell whether the jobs of this owner, None for those of nobody, may be seen and steered."""
        return self.owner_seen in {None, owner}

    @property
    def owner_seen(self) -> str | None:
        """The one owner whose jobs may be seen; None for all jobs."""
        return None if Right.ADMIN in self.rights else self.name

    def reaches(self, collection: str) -> bool:
        """Tell whether a collection may be named."""
        return any(fnmatchcase(collection, pattern) for pattern in self.collections)

    def require(self, right: Right) -> None:
        """Raise `Forbidden` where the key lacks a right."""
        if right not in self.rights:
            raise Forbidden(f"This needs a key with the right `{right}`, which this one has not. Ask for one that has.")

    def require_collection(self, collection: str) -> None:
        """Raise `Forbidden` for a collection that may not be named."""
        if not self.reaches(collection):
            raise Forbidden("This API key is not for this collection. Name one that it is for, or ask for another key.")

    def require_file(self, uri: str) -> None:
        """Raise `RootNotAllowed` for a file, by its canonical URI, that is in none of the key's roots."""
        self.require_folder(file_path(uri))

    def require_folder(self, real: Path) -> None:
        """Raise `RootNotAllowed` for a folder, by its real path, that is in none of the key's roots."""
        if self.roots is not None and not Roots([Path(root) for root in self.roots if root.startswith("/")]).covers(
            real
        ):
            raise RootNotAllowed

    def require_object(self, uri: str) -> None:
        """Raise `RootNotAllowed` for an object or a prefix of them that is in none of the key's roots."""
        if self.roots is not None and not any(uri.startswith(root) for root in self.roots if root.startswith(_OBJECTS)):
            raise RootNotAllowed


UNLIMITED: Final = Key()  #: Of those in LOOKALIKE_API_KEYS, and of everybody where no keys are asked for.


class _KeysFile(Record):
    """What LOOKALIKE_KEYS_FILE holds."""

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _tell_apart(self) -> Self:
        names = [key.name for key in self.keys]
        if None in names or not all(key.sha256 for key in self.keys):
            raise ValueError("each key has a `name` and a `sha256`")
        secrets = [digest for key in self.keys for digest in key.sha256]
        if len({*names}) < len(names) or len({*secrets}) < len(secrets):
            raise ValueError("no two keys share a `name` or a `sha256`")
        return self


class KeyRing:
    """All keys of this service."""

    def __init__(self, plain: Iterable[str], named: Iterable[Key]) -> None:
        self._keys = [(_digest(key), UNLIMITED) for key in plain]
        self._keys += [(bytes.fromhex(digest), key) for key in named for digest in key.sha256]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Read the keys that the settings name; raises `SetupError` for a file that is not as documented."""
        named = _read(settings.keys_file) if settings.keys_file else ()
        return cls((key.get_secret_value() for key in settings.api_keys), named)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def recognise(self, secret: str) -> tuple[str, Key] | None:
        """Return what tells the sender from others, which is no secret, and the key; None for a secret of nobody."""
        offered = _digest(secret)
        # Every key is compared, so that the time taken does not tell which one was nearly right.
        matches = [key for digest, key in self._keys if hmac.compare_digest(offered, digest)]
        return (matches[0].name or offered.hex()[:32], matches[0]) if secret and matches else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _read(file: Path) -> tuple[Key, ...]:
    try:
        found = _KeysFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise SetupError(f"The file of LOOKALIKE_KEYS_FILE cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "keys"
        raise SetupError(f"The file of LOOKALIKE_KEYS_FILE is wrong at `{place}`: {first['msg']}.") from error
    except ValueError as error:  # Not UTF-8, or not TOML.
        raise SetupError(f"The file of LOOKALIKE_KEYS_FILE is not TOML: {error}.") from error
    if not found.keys:
        raise SetupError("The file of LOOKALIKE_KEYS_FILE holds no [[keys]]. Unset it if nobody needs one.")
    return found.keys
