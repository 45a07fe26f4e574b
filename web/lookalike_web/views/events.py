"""`/v1/jobs/{id}/events`: a job's progress as server-sent events."""

from flask import Blueprint, Response, request

from lookalike_web.errors import Busy
from lookalike_web.events import EVENT_STREAM, EventStream, hung_up, known_version
from lookalike_web.openapi import Answer, Operation, operation
from lookalike_web.services import services
from lookalike_web.views.jobs import JOB_ERRORS, known_id
from lookalike_web.waiting import wait_gate

blueprint = Blueprint("events", __name__)


@blueprint.get("/v1/jobs/<job_id>/events")
@operation(
    Operation(
        tag="jobs",
        headers={"Last-Event-ID": "The `id` of the last event that was seen: the stream goes on behind it."},
        answers={
            200: Answer(description="A stream of events `progress` and one `done`.", media=(EVENT_STREAM,)),
            204: Answer(description="The job is final, and the client has seen its `done`.", media=()),
        },
        errors=(*JOB_ERRORS, Busy),
    )
)
def stream_events(job_id: str) -> Response:
    """Follow a job by server-sent events.

    The data of `progress` is the job's record without its request and result. The stream ends with `done`, or after
    LOOKALIKE_EVENT_STREAM_S, or when the service stops; a client that connects again goes on where it was.
    """
    known = known_version(request.headers.get("Last-Event-ID"))
    record = services().jobs.get(known_id(job_id))
    if record.state.final and record.version == known:
        return Response(status=204)  # Keeps a browser's EventSource from connecting again.
    gate, connection = wait_gate(), request.environ.get("gunicorn.socket")
    leave = gate.enter()
    if leave is None:
        raise Busy
    stream = EventStream(
        services().jobs,
        record,
        known=known,
        life_s=services().settings.event_stream_s,
        gone=lambda: gate.stopping() or hung_up(connection),
    )
    response = Response(iter(stream), mimetype=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})
    response.call_on_close(leave)
    return response
