"""The broker: Celery's configuration, the names of queues and tasks, and the doorbell.

A message carries nothing. It says that work may be waiting in a lane; what work, the job store decides when a worker
claims it. So a lost message costs a sweep, a doubled one costs a look, and no order of messages can starve a job.
"""

import logging
from typing import Any, Final

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from lookalike.errors import QueueUnavailable
from lookalike.jobstore import Lane
from lookalike.settings import Settings

log = logging.getLogger(__name__)

TASK_NAMES: Final = {Lane.INGEST: "lookalike.ingest", Lane.SEARCH: "lookalike.search"}

#: A worker's BRPOP is answered within its second, so a longer silence is a dead connection. A consumer meets it up to
#: four times before it is back: at its acknowledgement, its restoring, and on connections of its pool. The front end
#: only publishes, and fails fast.
WORKER_SOCKET_TIMEOUT_S: Final = 5.0
WEB_SOCKET_TIMEOUT_S: Final = 1.0
ENOUGH: Final = 64  #: Messages: more workers than this are woken by those that they find work for, and by the sweeper.


def celery_config(settings: Settings, *, socket_timeout_s: float) -> dict[str, Any]:
    """Celery's settings; docs/configuration.md gives the reason of each."""
    return {
        "broker_url": settings.redis_url.get_secret_value(),
        "broker_transport_options": {
            "visibility_timeout": 900,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": socket_timeout_s,
            "socket_connect_timeout": min(3.0, socket_timeout_s),
            "socket_keepalive": True,
            "retry_on_timeout": False,
            "health_check_interval": 10,
        },
        "visibility_timeout": 900,
        "broker_connection_timeout": 4,
        "broker_pool_acquire_timeout": 5,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "result_backend": None,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_create_missing_queues": False,
        "task_queues": _queues(),
        "task_routes": {TASK_NAMES[lane]: {"queue": lane.value} for lane in Lane},
        "task_default_queue": Lane.INGEST.value,
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 2,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        # No bound: the solo pool takes no message while it works anyway, and an acknowledgement that a dying Redis did
        # not hear would fill a bound of one for good, and leave a worker that lives and never hears a ring again.
        "worker_prefetch_multiplier": 0,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_soft_shutdown_timeout": 60.0,
    }


def model_queue(lane: Lane, fingerprint: str) -> str:
    """The queue of the workers of a lane that have a certain model. All hear the lane's own besides."""
    return f"{lane.value}.{fingerprint[:12]}"


def consumer_queues(lane: Lane, fingerprint: str) -> list[Any]:
    """The queues that a worker listens to."""
    return [_queue(lane.value), _queue(model_queue(lane, fingerprint))]


def _queues() -> list[Any]:
    return [_queue(lane.value) for lane in Lane]


def _queue(name: str) -> Any:
    make_queue: Any = Queue
    make_exchange: Any = Exchange
    return make_queue(name, make_exchange(name), routing_key=name)


class Doorbell:
    """Rings a lane's workers. Does not raise: an unheard ring is repeated by the sweeper."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    @classmethod
    def connect(cls, settings: Settings) -> "Doorbell":
        """Make a doorbell for a process that only publishes."""
        app = Celery("lookalike", set_as_current=False)
        config = celery_config(settings, socket_timeout_s=WEB_SOCKET_TIMEOUT_S)
        # One try: whoever rings has written the record, and the sweeper rings again.
        config["broker_transport_options"] |= {
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        }
        app.conf.update(config, task_publish_retry=False)
        return cls(app)

    def ring(self, lane: Lane, times: int = 1) -> None:
        """Send `times` messages to a lane."""
        try:
            for _ in range(times):
                self._app.send_task(TASK_NAMES[lane])
        except (OperationalError, RedisError, OSError) as error:
            log.warning("the doorbell of lane %s did not ring, the sweeper will: %s", lane, error)

    def pass_on(self, lane: Lane, model: str) -> None:
        """Ring the workers of a lane that have a certain model, unless a message for them waits already.

        For a worker that was rung, and found that what waits is theirs.
        """
        try:
            with self._app.connection_or_acquire() as connection:
                if connection.default_channel.client.llen(model_queue(lane, model)):
                    return
            self._app.send_task(TASK_NAMES[lane], queue=_queue(model_queue(lane, model)))
        except (OperationalError, RedisError, OSError) as error:
            log.warning("a ring of lane %s was not passed on, the sweeper will ring: %s", lane, error)

    def ring_enough(self, lane: Lane) -> None:
        """Send a message to a lane, unless so many wait there that they wake every worker.

        A worker that is awake goes on until nothing waits, so there need not be a message for each piece of work.
        """
        try:
            with self._app.connection_or_acquire() as connection:
                waiting = int(connection.default_channel.client.llen(lane.value))
        except (OperationalError, RedisError, OSError) as error:
            log.warning("the doorbell of lane %s did not ring, the sweeper will: %s", lane, error)
            return
        if waiting < ENOUGH:
            self.ring(lane)

    def pending(self, lane: Lane) -> int:
        """Count the messages of a lane that no worker has taken. Raises `QueueUnavailable`."""
        try:
            with self._app.connection_for_read() as connection:
                return int(connection.default_channel.client.llen(lane.value))
        except (OperationalError, RedisError, OSError) as error:
            raise QueueUnavailable from error
