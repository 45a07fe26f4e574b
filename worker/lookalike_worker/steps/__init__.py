"""Jobs that are done in steps: what is neither an ingest nor a search.

A step is a bounded piece of a job, of a second or two, that begins where the one before it ended: at its
checkpoint. One worker at a time does one, in the ingest lane, and the job takes its turn among the ingests after each.
A step whose worker dies is done again from the same checkpoint, so whatever it writes, it writes the same way twice.
"""

from collections.abc import Callable, Mapping
from typing import Final

from lookalike.jobstore import Step, StepClaim
from lookalike.records import JobKind
from lookalike_worker.context import Context
from lookalike_worker.steps.bulk import search_in_bulk
from lookalike_worker.steps.deletion import delete_matching
from lookalike_worker.steps.duplicates import find_duplicates
from lookalike_worker.steps.evaluation import evaluate
from lookalike_worker.steps.exports import export_collection
from lookalike_worker.steps.imports import import_collection
from lookalike_worker.steps.mapping import draw_map
from lookalike_worker.steps.reindex import reindex

#: Does the next step of a job. It is called with what keeps the claim, to be called about once a second; that raises
#: where the step is to end at once, which takes nothing back of what it did.
Work = Callable[[Context, StepClaim, Callable[[], None]], Step]

WORK: Final[Mapping[JobKind, Work]] = {
    JobKind.DELETION: delete_matching,
    JobKind.DUPLICATES: find_duplicates,
    JobKind.EVALUATION: evaluate,
    JobKind.MAP: draw_map,
    JobKind.REINDEX: reindex,
    JobKind.EXPORT: export_collection,
    JobKind.IMPORT: import_collection,
    JobKind.BULK_SEARCH: search_in_bulk,
}
