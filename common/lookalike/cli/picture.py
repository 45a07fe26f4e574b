"""Pictures that a command is asked to write."""

import os
from pathlib import Path
from typing import Any

import click


class PictureFile(click.Path):
    """The file of a picture to write, refused at once where it could not be written after minutes of work."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; fails where its folder is missing, or closed to us."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"There is no folder {path.parent}. Create it first.", param, ctx)
        if not path.exists() and not os.access(path.parent, os.W_OK):
            self.fail(f"The folder {path.parent} cannot be written to. Choose another.", param, ctx)
        return path
