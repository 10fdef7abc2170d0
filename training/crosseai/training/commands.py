"""Click commands that end with a message instead of a traceback; shared by training and export."""

from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from crosseai.contract import CrossEAIError
from crosseai.training.config import FitConfig

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(click.Command):
    """Ends with exit code 2 and one line when the input cannot be used, or a file not be read or written."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except CrossEAIError as error:
            raise click.UsageError(str(error), context) from error
        except BrokenPipeError:  # nobody reads the output any more, which click knows to end
            raise
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            raise click.UsageError(f"{where}{error.strerror or error}", context) from error


class Group(click.Group):
    """A group of such commands.

    Parameters
    ----------
    extensions
        Entry points that are commands, too: packages that import this one add theirs so.
    """

    command_class = Command

    def __init__(self, *arguments: Any, extensions: str | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        found = () if extensions is None else entry_points(group=extensions)
        self.extensions = {point.name: point for point in found}

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted({*super().list_commands(context), *self.extensions})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of that name."""
        own = super().get_command(context, name)
        return self.extensions[name].load() if own is None and name in self.extensions else own


def setting_options(command: Function) -> Function:
    """Give a command an option for every field of the configuration; those that are not used are None."""
    kinds = get_type_hints(FitConfig)
    for setting in reversed(fields(FitConfig)):
        kind, flag = kinds[setting.name], "--" + setting.name.replace("_", "-")
        default = ("on" if setting.default else "off") if kind is bool else str(setting.default)
        command = click.option(
            f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
            type=click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind,
            default=None,
            help=f"{setting.metadata['help']}  [paper: {default}]",
        )(command)
    return command
