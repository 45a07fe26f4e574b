"""What a command line was called with, and the options that every command takes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from lookalike.client import Client, Job
    from lookalike.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """One call of the command line."""

    url: str | None = None
    as_json: bool = False
    started: list[str] = field(default_factory=list)  #: Jobs that go on should we be interrupted.

    def client(self) -> "AbstractContextManager[Client]":
        """Return a client of the service."""
        from pydantic import ValidationError

        from lookalike.client import Client
        from lookalike.errors import InvalidParameter

        try:
            return Client(self.url, on_retry=lambda: click.echo("retrying...", err=True))
        except InvalidParameter as error:
            raise click.UsageError(error.message) from error
        except ValidationError as error:
            raise _usage(error) from error

    def note(self, job: "Job") -> None:
        """Remember a job that was accepted."""
        self.started.append(job.id)


def settings(**given: Any) -> "Settings":
    """Return the service's settings, as the options that were given and the environment have them."""
    from pydantic import ValidationError

    from lookalike.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value not in (None, ())})
    except ValidationError as error:
        raise _usage(error) from error


def _usage(error: Any) -> click.UsageError:
    first = error.errors(include_url=False)[0]
    name = "_".join(str(step) for step in first["loc"])
    return click.UsageError(f"LOOKALIKE_{name.upper()}: {first['msg']}")


def service_options(command: F) -> F:
    """Add --url and --json, which may stand before the command or behind it."""

    def remember(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value:
            ctx.ensure_object(Session).url = value

    url = click.option(
        "--url", expose_value=False, callback=remember, help="The service; default LOOKALIKE_URL or this machine."
    )
    return url(json_option(command))


def json_option(command: F) -> F:
    """Add --json, which may stand before the command or behind it."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Session).as_json = True

    return click.option(
        "--json", "as_json", is_flag=True, expose_value=False, callback=remember, help="Print records as JSON."
    )(command)


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False),
    help="The folder of the service's data; default LOOKALIKE_DATA_DIR or ~/.local/share/lookalike.",
)
