"""The broker: Celery's configuration, the names of queues and tasks, and the doorbell.

A message carries nothing. It says that work may be waiting in a lane; what work, the job store decides when a worker
claims it. So a lost message costs a sweep, a doubled one costs a look, and no order of messages can starve a job.
"""

import json
import logging
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final

import redis
from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.messaging import Producer
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

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
    """Rings a lane's workers. Does not raise: an unheard ring is repeated by the sweeper.

    Celery and kombu say what a message looks like, once for each queue. Then each message is one push of that text with
    ids of its own: sending it through them takes three times as long, and each search waits for it.
    """

    def __init__(self, client: "redis.Redis", config: Mapping[str, Any]) -> None:
        """Ring on a server, in messages as an app of this configuration sends them."""
        self._client = client
        self._config = config
        self._messages: dict[str, _Message] = {}  #: By queue.
        self._lock = threading.Lock()  #: kombu's broker in memory is the same for all threads.

    @classmethod
    def connect(cls, settings: Settings) -> "Doorbell":
        """Make a doorbell for a process that only publishes."""
        # One try on a connection that works: whoever rings has written the record, and the sweeper rings again.
        client = redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=WEB_SOCKET_TIMEOUT_S,
            socket_connect_timeout=WEB_SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=10,
            retry=Retry(ConstantBackoff(0), 1, supported_errors=(redis.ConnectionError,)),
        )
        return cls(client, celery_config(settings, socket_timeout_s=WEB_SOCKET_TIMEOUT_S))

    def ring(self, lane: Lane, times: int = 1) -> None:
        """Send `times` messages to a lane."""
        self._send(lane, lane.value, times)

    def pass_on(self, lane: Lane, model: str) -> None:
        """Ring the workers of a lane that have a certain model, unless a message for them waits already.

        For a worker that was rung, and found that what waits is theirs.
        """
        queue = model_queue(lane, model)
        try:
            if self._waiting(queue):
                return
        except QueueUnavailable as error:
            log.warning("a ring of lane %s was not passed on, the sweeper will ring: %s", lane, error.__cause__)
        else:
            self._send(lane, queue)

    def ring_enough(self, lane: Lane) -> None:
        """Send a message to a lane, unless so many wait there that they wake every worker.

        A worker that is awake goes on until nothing waits, so there need not be a message for each piece of work.
        """
        try:
            waiting = self._waiting(lane.value)
        except QueueUnavailable as error:
            log.warning("the doorbell of lane %s did not ring, the sweeper will: %s", lane, error.__cause__)
            return
        if waiting < ENOUGH:
            self.ring(lane)

    def pending(self, lane: Lane) -> int:
        """Count the messages of a lane that no worker has taken. Raises `QueueUnavailable`."""
        return self._waiting(lane.value)

    def _waiting(self, queue: str) -> int:
        try:
            return int(self._client.llen(queue))
        except (RedisError, OSError) as error:
            raise QueueUnavailable from error

    def _send(self, lane: Lane, queue: str, times: int = 1) -> None:
        with self._lock:
            if queue not in self._messages:
                self._messages[queue] = _Message(TASK_NAMES[lane], queue, self._config)
        try:
            if times > 0:
                self._client.lpush(queue, *(self._messages[queue].another() for _ in range(times)))
        except (RedisError, OSError) as error:
            log.warning("the doorbell of lane %s did not ring, the sweeper will: %s", lane, error)


class _Message:
    """A message as Celery sends it for a task without arguments, to be had any number of times."""

    def __init__(self, task: str, queue: str, config: Mapping[str, Any]) -> None:
        self._task_id = str(uuid.uuid4())
        app = Celery("lookalike", set_as_current=False)
        # kombu's brokers in memory and on Redis write a message down alike; this one is never anywhere but here.
        app.conf.update({**config, "broker_url": "memory://", "broker_transport_options": {}})
        with app.connection() as connection:
            channel = connection.default_channel
            make_producer: Any = Producer
            app.send_task(task, task_id=self._task_id, queue=_queue(queue), producer=make_producer(channel))
            sent = channel.basic_get(queue, no_ack=True)
        self._text = json.dumps(sent.serializable())
        self._delivery_tag = str(sent.delivery_tag)

    def another(self) -> str:
        """Return the message with ids of its own."""
        own = self._text.replace(self._task_id, str(uuid.uuid4()))
        return own.replace(self._delivery_tag, str(uuid.uuid4()))
