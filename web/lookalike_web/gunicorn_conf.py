"""gunicorn's configuration. Read in the master, which connects to nothing and imports little."""

from pathlib import Path
from typing import Any

from lookalike.settings import Settings

_settings = Settings()
_shared_memory = Path("/dev/shm")  # noqa: S108 - gunicorn keeps an unlinked file there, which nobody else can open.

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
worker_class = "lookalike_web.gunicorn_worker.ProblemThreadWorker"
workers = _settings.web_processes
threads = _settings.web_threads
preload_app = False  # Redis, gRPC and decoders do not survive a fork.
timeout = 60  # Of the process without a sign of life, not of a request: a slow upload is no reason to end it.
graceful_timeout = 30  # What an upload under way may take when the service stops.
keepalive = 5
max_requests = 5000  # Whatever leaks, leaks for so long.
max_requests_jitter = 2500  # So that the processes are not replaced together.
sendfile = False  # Python's waits for ever for a client that takes nothing, whatever time limit its socket has.
limit_request_line = 8190  # The app answers 414 from 4,094 on, in its own form.
worker_tmp_dir = str(_shared_memory) if _shared_memory.is_dir() else None  # fchmod on a slow disk would block.
control_socket_disable = True
forwarded_allow_ips = "127.0.0.1,::1"
accesslog = None  # The app writes its own, with request ids.
proc_name = "lookalike-web"

logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"},
        "bare": {"format": "%(message)s"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
        "stdout": {"class": "logging.StreamHandler", "formatter": "bare", "stream": "ext://sys.stdout"},
    },
    "root": {"level": _settings.log_level, "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True},
        "lookalike_web.access": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
    },
}


def post_worker_init(worker: Any) -> None:
    """Let waiting clients go as soon as the process is asked to stop; pay ahead what its first request would pay."""
    from lookalike_web import services, waiting  # Flask has no business in the master.

    gate = worker.wsgi.extensions[waiting.EXTENSION]
    gate.stopping = lambda: not worker.alive
    gate.parks = True
    worker.wsgi.extensions[services.EXTENSION].warm_up()


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """End the decoder processes and fetches with the process that started them."""
    app = getattr(worker, "wsgi", None)  # The master, which calls this too, has none.
    if app is not None:
        from lookalike_web.services import EXTENSION  # As above.

        app.extensions[EXTENSION].close()
