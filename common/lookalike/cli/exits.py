"""Exit codes, and how an error ends a command: one line on stderr, never a traceback for what has a code."""

import errno
import os
import sys
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
    errors.ArtifactNotFound: Exit.NOT_FOUND,
    errors.JobExpired: Exit.NOT_FOUND,
    errors.CollectionNotFound: Exit.NOT_FOUND,
    errors.ImageNotFound: Exit.NOT_FOUND,
    errors.ModelNotFound: Exit.NOT_FOUND,
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
    message = error.message
    if isinstance(error, errors.Unauthorized):
        message = "The API key is missing or wrong. Set LOOKALIKE_API_KEY to one that the service accepts."
    click.echo(f"error: {message} ({error.code})", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {note}", err=True)


class CommandLine(click.Group):
    """The top of the command line, where errors become exit codes."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands in the order they are needed."""
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line. click ends it quietly where the reader of a pipe has gone."""
        try:
            return super().main(*args, **options)
        except OSError as error:
            _report_os_error(error)
            sys.exit(Exit.FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what goes wrong in it is reported and becomes an exit code."""
        try:
            return super().invoke(ctx)
        except errors.LookalikeError as error:
            report(error)
            _tell_of(ctx.ensure_object(Session).started)
            ctx.exit(exit_of(error))
        except OSError as error:
            _tell_of(ctx.ensure_object(Session).started if error.errno != errno.EPIPE else ())
            raise
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            _tell_of(ctx.ensure_object(Session).started)
            ctx.exit(Exit.INTERRUPTED)


def _report_os_error(error: OSError) -> None:
    """Write what the operating system refused on stderr, and keep Python from trying it again at its end."""
    file = f"{error.filename}: " if error.filename else ""
    click.echo(f"error: {file}{error.strerror or error}.", err=True)
    try:
        sys.stdout.flush()
    except OSError:
        # The full disk or the like behind stdout; what is buffered would be written there again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_of(started: Sequence[str]) -> None:
    """Say how to get back to jobs that go on without us."""
    if started:
        goes = "The job goes on." if len(started) == 1 else f"The {len(started)} jobs go on."
        click.echo(f"{goes} Wait for it with: lookalike jobs wait {' '.join(started)}", err=True)
