"""Exit codes, and how an error ends a command: one line on stderr, never a traceback for what has a code."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import click

from lookalike import errors
from lookalike.cli.session import Session


class Exit(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    FAILED = 1  #: A job failed or was cancelled, or something else went wrong.
    USAGE = 2  #: The command, or the request made of it, is not one that can be carried out.
    NOT_FOUND = 3  #: No such job, collection, image, file or folder.
    UNREACHABLE = 4  #: No service answers, or a server that it needs does not.
    SOME_FILES = 5  #: Done, but some files or queries failed.
    INTERRUPTED = 130  #: Ctrl-C; the job goes on.


#: By error class; one that is not listed exits as its nearest ancestor.
_EXITS: dict[type[errors.LookalikeError], Exit] = {
    errors.LookalikeError: Exit.FAILED,
    errors.InvalidRequest: Exit.USAGE,
    errors.TooManyItems: Exit.USAGE,
    errors.JobNotFound: Exit.NOT_FOUND,
    errors.JobExpired: Exit.NOT_FOUND,
    errors.CollectionNotFound: Exit.NOT_FOUND,
    errors.ImageNotFound: Exit.NOT_FOUND,
    errors.FolderNotFound: Exit.NOT_FOUND,
    errors.FileMissing: Exit.NOT_FOUND,
    errors.ServiceUnreachable: Exit.UNREACHABLE,
    errors.QueueUnavailable: Exit.UNREACHABLE,
    errors.QueueFull: Exit.UNREACHABLE,
    errors.VectorStoreUnavailable: Exit.UNREACHABLE,
    errors.NotRunning: Exit.UNREACHABLE,
}


def exit_of(error: errors.LookalikeError) -> Exit:
    """Return the exit code of an error."""
    return next(_EXITS[cls] for cls in type(error).__mro__ if cls in _EXITS)


def report(error: errors.LookalikeError) -> None:
    """Write an error on stderr: its sentence, its code, and its notes."""
    click.echo(f"error: {error.message} ({error.code})", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {note}", err=True)


class CommandLine(click.Group):
    """The top of the command line, where errors become exit codes."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands in the order they are needed."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what goes wrong is reported and becomes an exit code."""
        try:
            return super().invoke(ctx)
        except errors.LookalikeError as error:
            report(error)
            _tell_of(ctx.ensure_object(Session).started)
            ctx.exit(exit_of(error))
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            _tell_of(ctx.ensure_object(Session).started)
            ctx.exit(Exit.INTERRUPTED)


def _tell_of(started: Sequence[str]) -> None:
    """Say how to get back to jobs that go on without us."""
    if started:
        goes = "The job goes on." if len(started) == 1 else f"The {len(started)} jobs go on."
        click.echo(f"{goes} Wait for it with: lookalike jobs wait {' '.join(started)}", err=True)
