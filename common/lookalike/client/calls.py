"""The calls about one job, for those who wait in a thread and those who wait in an event loop alike."""

from urllib.parse import quote

from lookalike.client.connection import Call, submit_key
from lookalike.errors import JobExpired, JobNotFound, LookalikeError

_PAGE_LINES = 1000


def about_job(job_id: str) -> dict[type[LookalikeError], str]:
    """Return whose id to name where a job is not there."""
    return {JobNotFound: job_id, JobExpired: job_id}


def look(job_id: str, *, hold_s: float = 0.0, patience_s: float | None = None) -> Call:
    """Ask for a job's record; the service may hold its answer for `hold_s`, until the job is final."""
    return Call(
        method="GET",
        path=_path(job_id),
        params={"wait": round(hold_s, 3)} if hold_s > 0 else {},
        hold_s=hold_s,
        patience_s=patience_s,
        about=about_job(job_id),
    )


def tell(job_id: str, verb: str) -> Call:
    """Cancel, pause or resume a job."""
    return Call(method="POST", path=f"{_path(job_id)}/{verb}", about=about_job(job_id))


def retry(job_id: str) -> Call:
    """Ask for a job of what failed in this one."""
    return Call(method="POST", path=f"{_path(job_id)}/retry", headers=submit_key(), about=about_job(job_id))


def failures(job_id: str, cursor: str | None) -> Call:
    """Ask for a page of a failures ledger."""
    params = {"limit": _PAGE_LINES, **({"cursor": cursor} if cursor else {})}
    return Call(method="GET", path=f"{_path(job_id)}/failures", params=params, about=about_job(job_id))


def figure(job_id: str) -> Call:
    """Ask for a search as a picture."""
    return Call(method="GET", path=f"{_path(job_id)}/figure.png", about=about_job(job_id))


def files(job_id: str) -> Call:
    """Ask which files a job has left behind."""
    return Call(method="GET", path=f"{_path(job_id)}/files", about=about_job(job_id))


def file(job_id: str, name: str) -> Call:
    """Ask for one of them."""
    return Call(method="GET", path=f"{_path(job_id)}/files/{quote(name, safe='')}", about=about_job(job_id))


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
