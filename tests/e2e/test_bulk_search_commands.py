"""A bulk search by the command line, over the whole stack."""

import csv
import json
import shutil
from pathlib import Path

from stack import Stack


def test_a_folder_that_is_uploaded_is_searched_with_and_its_results_are_fetched(
    stack: Stack, collection: str, gallery: list[Path], tmp_path: Path
) -> None:
    queries, output = tmp_path / "queries", tmp_path / "results"
    queries.mkdir()
    for number, path in enumerate(gallery[:3]):
        shutil.copy(path, queries / f"{number}{path.suffix}")
    (queries / "broken.jpg").write_bytes(b"no picture")
    done = stack.cli("bulk-search", str(queries), "-c", collection, "-k", "2", "-o", str(output))
    assert done.returncode == 5, done.stderr  # Some files failed.
    assert {path.name for path in output.iterdir()} == {"results.jsonl", "results.csv", "sheet-001.png"}
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    found = {line["query"]["name"]: [hit["name"] for hit in line["hits"]] for line in lines}
    assert found.pop("queries/broken.jpg") == []
    assert [found[name][0] for name in sorted(found)] == [path.name for path in gallery[:3]]
    with (output / "results.csv").open(newline="") as table:
        assert sum(row["rank"] == "1" for row in csv.DictReader(table)) == 3
