"""The app factory: the views, the errors and the guards around them, on services made elsewhere."""

from importlib.metadata import version

from flask import Flask

from lookalike_web import auth, errors, guards, openapi, services, waiting
from lookalike_web.parsing import MAX_FORM_FIELD_BYTES
from lookalike_web.requests import FrontEndRequest
from lookalike_web.services import Services
from lookalike_web.views import (
    bulk_searches,
    collections,
    controls,
    deletions,
    docs,
    duplicates,
    evaluations,
    events,
    exports,
    files,
    garbage,
    health,
    images,
    ingests,
    jobs,
    outcomes,
    page,
    reembeds,
    searches,
    uploads,
)

#: Form fields beside the images of a multipart request; more are refused before they are read.
_SPARE_FORM_PARTS = 16

_VIEWS = (
    ingests,
    uploads,
    searches,
    bulk_searches,
    jobs,
    controls,
    events,
    outcomes,
    files,
    collections,
    reembeds,
    images,
    deletions,
    duplicates,
    evaluations,
    exports,
    garbage,
    health,
    docs,
    page,
)


def create_app(parts: Services) -> Flask:
    """Make the front end on the given services. Makes no connection and starts nothing."""
    settings = parts.settings
    app = Flask(__name__, static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_upload_bytes,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_FIELD_BYTES,
        MAX_FORM_PARTS=settings.max_upload_images + _SPARE_FORM_PARTS,
    )
    app.request_class = FrontEndRequest
    app.extensions[services.EXTENSION] = parts
    app.extensions[waiting.EXTENSION] = waiting.WaitGate(
        parts.jobs, slots=max(1, settings.web_threads * 3 // 4), max_wait_s=settings.max_wait_s
    )
    guards.register(app, settings)
    auth.register(app, settings)
    errors.register(app)
    for module in _VIEWS:
        app.register_blueprint(module.blueprint)
    app.extensions[docs.EXTENSION] = openapi.build(app, version=version("lookalike"))
    return app
