"""What all records share, and the forms of names and ids."""

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, StringConstraints

IMAGE_ID: Final = re.compile("[0-9a-f]{32}")  #: Use with `fullmatch`.

CollectionName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z](?:_?[A-Za-z0-9])*$", max_length=48, strip_whitespace=True)
]  #: Letters, digits and single underscores: two underscores set off the model in the physical name.
ImageID = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
SHA256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: A model by its fingerprint, the first eight or more digits of that, or, where that is clear, its name.
ModelName = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]
Metadata = dict[str, Any]  #: The user's own fields of an image; filters compare them.


class Record(BaseModel):
    """What all records share: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
