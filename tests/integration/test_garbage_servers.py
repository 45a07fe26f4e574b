"""Clean-ups beside a real job store and a real vector store."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from lookalike.errors import QueueUnavailable, VectorStoreUnavailable
from lookalike.garbage import collect
from lookalike.jobstore.redis import RedisJobStore
from lookalike.records import IngestRequest, JobKind, ModelInfo, UploadedFile, UploadSource
from lookalike.roots import image_id
from lookalike.settings import Settings
from lookalike.uploads import UploadStore, upload_uri
from lookalike.vectorstore import StoredImage, VectorStore
from ports import free_port

DIM = 8
MODEL = ModelInfo(name="resnet50", weights="untrained", trained=False, fingerprint="ab" * 32, dim=DIM)


def put(uploads: UploadStore, text: str) -> str:
    sha256 = uploads.put(io.BytesIO(text.encode()))
    (path,) = uploads.folder.rglob(sha256)
    os.utime(path, (1, 1))
    return sha256


def store(vectors: VectorStore, name: str, sha256: str) -> None:
    """Store a row of an uploaded image, as a worker would."""
    vectors.bind(name, MODEL)
    uri = upload_uri(sha256)
    row = StoredImage(
        id=image_id(uri), uri=uri, name="a", sha256=sha256, size=1, mtime_ns=1, width=1, height=1, metadata={}
    )
    vectors.upsert(name, [row], np.ones((1, DIM), dtype=np.float32))


def test_what_rows_and_jobs_refer_to_stays_until_they_are_gone(redis_url: str, milvus_uri: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, milvus_uri=milvus_uri, data_dir=tmp_path, min_free_bytes=0)
    uploads, jobs, vectors = UploadStore.from_settings(settings), RedisJobStore.connect(settings), VectorStore(settings)
    stored, dropped, in_job, orphan = (put(uploads, text) for text in ("stored", "dropped", "in a job", "orphan"))
    store(vectors, "garbage_kept", stored)
    store(vectors, "garbage_dropped", dropped)
    jobs.create(JobKind.INGEST, IngestRequest(source=UploadSource(files=(UploadedFile(sha256=in_job),))))

    def kept() -> set[str]:
        return {file.sha256 for file in uploads.walk("images")}

    try:
        assert collect(settings, jobs, vectors, uploads, dry_run=True).uploads == 1
        assert collect(settings, jobs, vectors, uploads, dry_run=False).freed_bytes == len("orphan")
        assert kept() == {stored, dropped, in_job}

        vectors.drop("garbage_dropped")
        for path in uploads.folder.rglob("*"):
            os.utime(path, (1, 1))
        assert collect(settings, jobs, vectors, uploads, dry_run=False).uploads == 1
        assert kept() == {stored, in_job}
        assert orphan not in kept()

        for path in uploads.folder.rglob("*"):
            os.utime(path, (1, 1))
        nowhere = settings.model_copy(update={"milvus_uri": f"http://127.0.0.1:{free_port()}", "milvus_timeout_s": 1.0})
        unreachable = VectorStore(nowhere)
        put(uploads, "another orphan")
        with pytest.raises(VectorStoreUnavailable):
            collect(settings, jobs, unreachable, uploads, dry_run=False)
        unreachable.close()
        without = RedisJobStore.connect(
            Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")  # type: ignore[arg-type]
        )
        with pytest.raises(QueueUnavailable):
            collect(settings, without, vectors, uploads, dry_run=False)
        without.close()
        assert len(kept()) == 3
    finally:
        vectors.drop("garbage_kept")
        vectors.close()
        jobs.close()
