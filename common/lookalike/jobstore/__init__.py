"""The job store: the one truth about jobs, their chunks, leases, attempts, progress and results.

The front end creates, reads and cancels; a worker claims work under a lease, renews it, and accounts for it once; the
sweeper takes back what a dead worker held. `RedisJobStore` is what the service runs on, `MemoryJobStore` its twin for
tests; one contract suite holds both.
"""

from lookalike.jobstore.base import (
    Change,
    ChunkClaim,
    ChunkOutcome,
    Claim,
    Idempotency,
    IngestItem,
    JobStore,
    Lane,
    Limits,
    Phase,
    PlanClaim,
    Planned,
    Receipt,
    Renewal,
    SearchClaim,
    Step,
    StepClaim,
    Swept,
    WebhookClaim,
)

__all__ = [
    "Change",
    "ChunkClaim",
    "ChunkOutcome",
    "Claim",
    "Idempotency",
    "IngestItem",
    "JobStore",
    "Lane",
    "Limits",
    "Phase",
    "PlanClaim",
    "Planned",
    "Receipt",
    "Renewal",
    "SearchClaim",
    "Step",
    "StepClaim",
    "Swept",
    "WebhookClaim",
]
