"""The root of the error tree, and the way back from a code to its class."""

from typing import ClassVar


class LookalikeError(Exception):
    """Something went wrong inside lookalike. The service's log has the details."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str | None = None) -> None:
        self.message = message or " ".join((self.__doc__ or self.code).split())
        super().__init__(self.message)


def _tree(root: type[LookalikeError]) -> list[type[LookalikeError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


def error_classes() -> dict[str, type[LookalikeError]]:
    """Every error class by its code, for turning a stored or received code back into its class."""
    return {cls.code: cls for cls in _tree(LookalikeError)}
