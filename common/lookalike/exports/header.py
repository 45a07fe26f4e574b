"""The header of an export: what its vectors are, beside them as `collection.json` and in each Parquet file."""

import json
import re
from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from lookalike.errors import ExportInvalid
from lookalike.records import Collection, ExportFormat, IndexKind, Metric, ModelInfo, Record
from lookalike.records.exports import HEADER_FILE

MAX_HEADER_BYTES: Final = 1 << 20
MAX_DIM: Final = 32_768  #: Values of one vector that Milvus takes.
_MAX_NAME_CHARS: Final = 1_000  #: Of a model or its weights; the catalog has room for a few thousand.

#: It becomes part of a name in Milvus.
_FINGERPRINT: Final = re.compile("[0-9a-f]{12,128}")


class ExportHeader(Record):
    """What an export holds."""

    lookalike_export: Literal[1] = 1  #: The version of the files' layout.
    collection: str  #: The name it was exported under.
    metric: Metric
    index: IndexKind
    model: ModelInfo | None = None  #: Null where no image was ever stored.
    format: ExportFormat
    filter: str | None = None  #: Null where all images were exported.
    exported_at: datetime
    images: int | None = Field(None, ge=0)  #: Null inside a Parquet file, which is written before the last one.
    files: int | None = Field(None, ge=0)  #: How many there are beside this one, likewise.

    @classmethod
    def of(cls, record: Collection, format: ExportFormat, filter: str | None, exported_at: datetime) -> Self:
        """Describe a collection."""
        return cls(
            collection=record.name,
            metric=record.metric,
            index=record.index,
            model=record.model,
            format=format,
            filter=filter,
            exported_at=exported_at,
        )

    @model_validator(mode="after")
    def _model_can_be_one(self) -> Self:
        model = self.model
        if model is not None and not (
            _FINGERPRINT.fullmatch(model.fingerprint)
            and 0 < model.dim <= MAX_DIM
            and len(model.name) + len(model.weights) <= _MAX_NAME_CHARS
        ):
            raise ValueError("its model is none that a collection can have")
        return self


def parse_header(data: bytes) -> ExportHeader:
    """Read a header; raises `ExportInvalid`. Fields that a later version added are passed over."""
    try:
        found: Any = json.loads(data.decode())
        if isinstance(found, dict) and isinstance(found.get("lookalike_export"), int) and found["lookalike_export"] > 1:
            raise ExportInvalid("This export was written by a later version of lookalike. Install that one here, too.")
        return ExportHeader.model_validate(found, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or HEADER_FILE
        raise ExportInvalid(f"The export's header is not one ({place}: {first['msg']}).") from error
    except (ValueError, RecursionError) as error:
        raise ExportInvalid(f"{HEADER_FILE} is not the header of an export.") from error
