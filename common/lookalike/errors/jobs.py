"""Jobs that are not there, not ready for what is asked, or not what was hoped for."""

from lookalike.errors.base import LookalikeError


class JobNotFound(LookalikeError):
    """There is no job with this id. `lookalike jobs ls` lists those that exist."""

    code = "job_not_found"


class JobExpired(LookalikeError):
    """This job finished long ago and its record has expired. Submit it again if its result is still needed."""

    code = "job_expired"


class ArtifactNotFound(LookalikeError):
    """The job has no file of this name. Its `files` link lists those it has."""

    code = "artifact_not_found"


class JobNotFinal(LookalikeError):
    """The job still runs, so what failed in it is not known yet. Wait until it is final, or cancel it."""

    code = "job_not_final"


class JobFailed(LookalikeError):
    """The job failed. Its record's `error` field says why."""

    code = "job_failed"


class JobCancelled(LookalikeError):
    """The job was cancelled. What it had stored until then stays stored."""

    code = "job_cancelled"


class WaitTimeout(LookalikeError):
    """The job had not finished when the waiting time was over. It goes on; wait for it again by its id."""

    code = "wait_timeout"


class Quarantined(LookalikeError):
    """Workers died on this work several times, so it was set aside. Look at the worker's log before trying again."""

    code = "quarantined"
