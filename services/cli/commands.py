"""What every group of commands and every command has in common: plain help with an example, and no frames around it."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.models import Default

from services.cli.exits import EXIT_CODES
from services.cli.program import as_typed


class NobodyReads(Exception):
    """The reader of standard output has closed it."""


class Command(TyperCommand):
    """A command whose help names its values in plain words instead of Python types."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises NobodyReads where Typer would exit with code 1, which means failure here."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise NobodyReads from error

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return usage such as `[OPTIONS] FILE`, with brackets around optional parts."""
        names = [_argument(param) for param in self.get_params(ctx) if isinstance(param, TyperArgument)]
        return [*([self.options_metavar] if self.options_metavar else []), *names]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, each with the word for its value."""
        arguments, options = [], []
        for param in self.get_params(ctx):
            if isinstance(param, TyperArgument) and not param.hidden:
                arguments.append((_argument(param), param.help or ""))
            elif isinstance(param, TyperOption) and (row := _option(param, ctx)) is not None:
                options.append(row)
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example on lines that can be copied."""
        if self.epilog:
            with formatter.section("Example"):
                for line in as_typed(self.epilog).splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(TyperGroup):
    """A group of commands with the same plain help."""

    command_of_sign: tuple[str, str] | None = None
    """A sign, and the command that is meant where no command is named and a word has this sign."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command that is meant before words that name none."""
        sign, meant = self.command_of_sign or ("", "")
        if meant and args and args[0] not in self.list_commands(ctx) and any(sign in word for word in args):
            args = [meant, *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the whole first sentence of its help."""
        named = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _first_sentence(one.help or "")) for name, one in named if one is not None and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write exit codes and settings, which hold for all commands, only in the help of the program."""
        if ctx.parent is None:
            super().format_epilog(ctx, formatter)


class Commands(typer.Typer):
    """A group of commands, each of which has an example."""

    def __init__(self, purpose: str | None = None, cls: type[TyperGroup] = Group, *, completion: bool = True) -> None:
        super().__init__(
            help=Default(None) if purpose is None else purpose,
            cls=cls,
            epilog=EXIT_CODES,
            no_args_is_help=True,
            add_completion=completion,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
        )

    def command(  # type: ignore[override]  # every command has an example
        self, name: str | None = None, *, example: str, **more: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a command named `name`, or like the function; `example` is printed below its help."""
        return super().command(name, cls=Command, epilog=example, **more)


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".") + "."


def _argument(param: TyperArgument) -> str:
    name = param.metavar or (param.name or "").upper()
    many = "..." if param.nargs != 1 and not name.endswith("...") else ""
    return f"{name}{many}" if param.required or name.startswith("[") else f"[{name}]{many}"


def _option(param: TyperOption, ctx: Any) -> tuple[str, str] | None:
    if param.metavar is None and not param.is_bool_flag:
        param.metavar = _value(param)
    row: tuple[str, str] | None = param.get_help_record(ctx)
    return row


def _value(param: TyperOption) -> str:
    """Return the word for an option's value: its choices, N for a number, or the option's own name."""
    about = param.type_descriptor
    if about.is_choice and about.choices is not None:
        return "|".join(map(str, about.choices))
    return "N" if about.annotation in (int, float) or about.is_ranged else (param.name or "").upper().rstrip("_")
