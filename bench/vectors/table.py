"""The figures as a table, for docs/decisions/."""

from typing import Any, Final

_HEAD: Final = (
    "| server | rows | index | searches with | build s | build CPU s | RSS MiB | one p50 ms | p95 | CPU | "
    "32: p50 ms | p95 | CPU | recall@1 | recall@10 |"
)


def table(noted: list[dict[str, Any]]) -> str:
    """One line for each search that was noted, with the last building and loading of its index before it."""
    lines = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    before: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in noted:
        key = (one["server"], str(one["dim"]), one["index"], str(one["rows"]))
        if one["step"] == "search":
            lines.append(_line(one, before.get((*key, "index"), {}), before.get((*key, "load"), {})))
        before[*key, one["step"]] = one
    return "\n".join(lines)


def _line(search: dict[str, Any], index: dict[str, Any], load: dict[str, Any]) -> str:
    one, many = search["one"], search["many"]
    cells = [
        search["server"],
        f"{search['rows']:,} of {search['dim']:,}",
        search["spec"],
        " ".join(f"{key}={value}" for key, value in search["search"].items()),
        *(f"{index[key]:.1f}" if key in index else "" for key in ("build_s", "build_cpu_s")),
        f"{load['rss_mib']:.0f}" if load else "",
        *(f"{one[key]:.1f}" for key in ("p50_ms", "p95_ms", "cpu_ms")),
        *(f"{many[key]:.0f}" for key in ("p50_ms", "p95_ms", "cpu_ms")),
        f"{search['recall_1']:.3f}",
        f"{search['recall_10']:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"
