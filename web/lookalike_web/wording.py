"""What pydantic finds wrong with a request, in sentences for those who wrote the request."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

_NAME_RULE: Final = "A name begins with a letter and has letters, digits and single underscores, 48 at most"
_NAMED: Final = ("collection", "name")  #: The fields that hold a collection's name.

_TAGGED: Final = "source"  #: The field whose `type` says what it is.

_SENTENCES: Final[Mapping[str, str]] = {
    "extra_forbidden": "`{field}` is not a field of this request; /docs lists them",
    "missing": "`{field}` is needed",
    "too_short": "`{field}` has too few entries; {min_length} at least",
    "too_long": "`{field}` has too many entries; {max_length} at most",
    "string_too_short": "`{field}` has too few characters; {min_length} at least",
    "string_too_long": "`{field}` has too many characters; {max_length} at most",
    "string_pattern_mismatch": "`{field}` does not have the form it must have; /docs shows it",
    "string_type": "`{field}` must be text",
    "int_type": "`{field}` must be a whole number",
    "int_parsing": "`{field}` must be a whole number",
    "int_parsing_size": "`{field}` is too large a number",
    "int_from_float": "`{field}` must be a whole number",
    "float_type": "`{field}` must be a number",
    "float_parsing": "`{field}` must be a number",
    "finite_number": "`{field}` must be a finite number",
    "bool_type": "`{field}` must be true or false",
    "bool_parsing": "`{field}` must be true or false",
    "tuple_type": "`{field}` must be a list",
    "dict_type": "`{field}` must be an object",
    "model_type": "`{field}` must be an object",
    "model_attributes_type": "`{field}` must be an object",
    "literal_error": "`{field}` must be {expected}",
    "enum": "`{field}` must be {expected}",
    "union_tag_invalid": "`{field}.type` must be {expected_tags}",
    "union_tag_not_found": "`{field}.type` is needed",
    "greater_than_equal": "`{field}` must be {ge} or more",
    "less_than_equal": "`{field}` must be {le} or less",
    "value_error": "`{field}`: {error}",
}


def error_lines(error: ValidationError) -> list[dict[str, str]]:
    """List what is wrong: where (`loc`), and a sentence without its full stop (`msg`)."""
    found = error.errors(include_url=False, include_input=False)
    places = [line["loc"] for line in found]
    # A list whose element failed is also called too short, which is only an echo.
    lines = [line for line in found if not any(_is_inside(place, line["loc"]) for place in places)]
    return [{"loc": _path(line["loc"]), "msg": _sentence(line)} for line in lines]


def _is_inside(place: Sequence[int | str], other: Sequence[int | str]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _path(loc: Sequence[int | str]) -> str:
    """Write a place as its client wrote it, without the name of the kind of source that pydantic puts into it."""
    after = (None, *loc)
    return ".".join(str(part) for part, parent in zip(loc, after, strict=False) if parent != _TAGGED)


def _sentence(line: Mapping[str, Any]) -> str:
    kind, loc = line["type"], line["loc"]
    if kind in {"string_pattern_mismatch", "string_too_long"} and loc[-1] in _NAMED:
        return _NAME_RULE
    facts = {**line.get("ctx", {}), "field": shown(_path(loc))}
    if facts.get("expected") == "False":
        facts["expected"] = "false"  # As JSON has it.
    if kind == "value_error" and not loc:
        return str(facts["error"])  # About fields that do not go together.
    return _SENTENCES.get(kind, f"`{{field}}` cannot be used ({kind})").format_map(facts)


def shown(name: str) -> str:
    """Shorten a name that the client chose, to be repeated to it."""
    return name if len(name) <= 64 else f"{name[:61]}..."
