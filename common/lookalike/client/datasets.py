"""Published sets of images, fetched once into a cache of this machine's user."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lookalike.client.transfer import OnBytes
from lookalike.errors import ChecksumMismatch, DatasetUnreachable, InvalidRequest, MissingExtra

_RETRIES: Final = 3
_TIMEOUT_S: Final = 60.0  #: Without a byte.


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An archive of images on the web."""

    url: str
    file: str  #: The name it is kept under.
    sha256: str | None = None  #: As published; None where nobody publishes one: then the first download's is kept.


#: The tutorial's set: 4,978 impressionist paintings, 2.35 GB, from
#: https://www.kaggle.com/datasets/delayedkarma/impressionist-classifier-data, which its authors host again.
DATASETS: Final = {
    "paintings": Dataset(
        url="https://drive.google.com/uc?id=1OYDHLEy992qu5C4C8HV5uDIkOWRTAR1_",
        file="paintings.zip",
    )
}


def fetch(name: str, *, on_bytes: OnBytes, known: dict[str, Dataset] = DATASETS, folder: Path | None = None) -> Path:
    """Return the local archive of a set, downloading what is missing of it.

    Raises `InvalidRequest` for an unknown name, `MissingExtra` without gdown, `DatasetUnreachable`, and
    `ChecksumMismatch` where the file is not what was published, or not what the first download was.
    """
    if name not in known:
        raise InvalidRequest(f"There is no set of images {name!r}. Known are: {', '.join(known)}.")
    dataset = known[name]
    path = (folder or _cache_folder()) / dataset.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        part = path.with_name(path.name + ".part")
        digest = _download(dataset.url, part, on_bytes)
        _check(part, digest, dataset, path)
        part.replace(path)
    return path


def _download(url: str, part: Path, on_bytes: OnBytes) -> str:
    try:
        import gdown
        from gdown.exceptions import DownloadError, FileURLRetrievalError
    except ImportError as error:
        raise MissingExtra("Fetching a set of images needs gdown: pip install 'lookalike[datasets]'.") from error
    digest = hashlib.sha256()
    try:
        gdown.download(
            url,
            os.fspath(part),
            quiet=True,
            resume=True,
            retries=_RETRIES,
            timeout=_TIMEOUT_S,
            use_cookies=False,
            hasher=digest,
            progress=lambda done, total: on_bytes(done, total or done),
        )
    except (DownloadError, FileURLRetrievalError, OSError) as error:
        raise DatasetUnreachable(f"{url} could not be downloaded: {error}. Run the command again to go on.") from error
    return digest.hexdigest()


def _check(part: Path, digest: str, dataset: Dataset, path: Path) -> None:
    """Compare a download with what is known of it; without anything published, with the first one made here."""
    note = path.with_name(path.name + ".sha256")
    expected = dataset.sha256 or (note.read_text().split()[0] if note.exists() else None)
    if expected is not None and digest != expected:
        part.unlink()
        raise ChecksumMismatch(f"{dataset.file} has the SHA-256 {digest} instead of {expected}. It was dropped.")
    note.write_text(f"{digest}  {dataset.file}\n")


def _cache_folder() -> Path:
    return Path("~/.cache/lookalike/datasets").expanduser()
