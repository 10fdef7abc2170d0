"""Click commands that end with a message instead of a traceback; shared by training and export."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from crosseai.contract import CrossEAIError
from crosseai.training.config import FitConfig

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(click.Command):
    """Ends with exit code 2 and one line when the input cannot be used."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except CrossEAIError as error:
            raise click.UsageError(str(error), context) from error


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


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
