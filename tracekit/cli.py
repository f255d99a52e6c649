"""The face: one click group that loads each command when it is called.

The table names commands by string, so `tracekit --help` imports neither unicorn nor pyarrow nor polars, and no arrow runs from
this floor up into a wing.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tracekit import __version__
from tracekit.formats.errors import TracekitError

COMMANDS: dict[str, tuple[str, str]] = {
    "analyze": ("tracekit.analyzers.cli:analyze", "How true a guest's stolen time was, and which invariants are broken."),
    "baseline": ("tracekit.workbench.cli:baseline", "Keep the metrics of scenarios beside your code, and check them."),
    "compare": ("tracekit.analyzers.cli:compare", "Whether two runs, or sets of runs, are equally good: a verdict."),
    "completion": ("tracekit.workbench.cli:completion", "Print the script that completes commands in bash, zsh or fish."),
    "demo": ("tracekit.workbench.cli:demo", "Record a bundled guest on a contended host, replay it, show its steal report."),
    "diff": ("tracekit.analyzers.cli:diff", "The first event in which two traces differ, why, and what differs after it."),
    "dump": ("tracekit.formats.cli:dump", "Print the rows of a table, or the console's bytes."),
    "export": ("tracekit.analyzers.export.cli:export", "Write a trace for Perfetto, Chrome's viewer, Parquet or CSV."),
    "faults": ("tracekit.recorder.cli:faults", "List the faults that a hypervisor can be given, and what finds each."),
    "info": ("tracekit.formats.cli:info", "What a trace holds and how its run ended."),
    "pack": ("tracekit.formats.cli:pack", "Make one file of a trace."),
    "query": ("tracekit.workbench.cli:query", "Ask the tables of one or many traces in SQL."),
    "record": ("tracekit.recorder.cli:record", "Record a guest into a trace."),
    "recover": ("tracekit.formats.cli:recover", "Save what is whole of an unfinished or damaged trace."),
    "replay": ("tracekit.replay.cli:replay", "Replay a trace and compare everything that happens."),
    "report": ("tracekit.analyzers.report.cli:report", "Make one offline page that shows a run, or two side by side."),
    "unpack": ("tracekit.formats.cli:unpack", "Make a directory of a packed trace."),
    "verify": ("tracekit.formats.cli:verify", "Check every hash, schema and cross-reference, without running anything."),
    "who-wrote": ("tracekit.workbench.cli:who_wrote", "The writes to an address, the newest first, each with its proof."),
}


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what stdout may say when it is a file on a full or broken disk

NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS)  # what may be wrong with a path that was given


class LazyGroup(click.Group):
    """Lists commands from the table; loads one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), COMMANDS[cmd_name]
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=COMMANDS[name][1]) for name in self.list_commands(ctx) if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tracekit")
@click.pass_context
def group(context: click.Context) -> None:
    """Record, replay and analyse arm64 guests and their stolen time.

    Exit codes: 0 good or same, 1 a finding, 2 trouble, 3 inconclusive, 130 interrupted.
    """
    context.obj = symbols_for


def symbols_for(trace: Any, extra: Path | None) -> Any:
    """The names of a trace's addresses, for commands of the ground, which knows no symbols. Errors: InputError, TraceDamaged."""
    return importlib.import_module("tracekit.symbols.symbols").Symbols.for_trace(trace, extra)


def main() -> None:
    """Run the group. A TracekitError becomes one line and its exit code; nothing else but a finding exits with 1."""
    gc.set_threshold(50_000, 20, 20)  # imports and runs make much that lives long and few cycles
    try:
        code = group(standalone_mode=False, prog_name="tracekit")
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.exceptions.Abort:
        click.echo("tracekit: interrupted", err=True)
        code = 130
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        click.echo(f"tracekit: {error.format_message()}{hint}", err=True)
        code = 2
    except TracekitError as error:
        click.echo(f"tracekit: {error}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        click.echo("tracekit: interrupted", err=True)
        code = 130
    except SystemExit as stop:  # a command's own; or click's, with 1, where stdout is a pipe that nobody reads any more
        code = 0 if "PacifyFlushWrapper" in type(sys.stdout).__name__ else stop.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # our own mistake: never 1, a CI job must not read it as a finding
        if isinstance(error, OSError) and error.errno in FULL:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer would fail at exit again
            click.echo(f"tracekit: cannot write the output: {error.strerror}", err=True)
            sys.exit(2)
        if isinstance(error, OSError) and error.errno in NAMES and error.filename is not None:
            name = str(error.filename)
            click.echo(f"tracekit: {error.strerror}: {name if len(name) <= 100 else name[:100] + '...'}", err=True)
            sys.exit(2)
        if os.environ.get("TRACEKIT_DEBUG"):
            traceback.print_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        click.echo(
            f"tracekit: internal error at {where}: {type(error).__name__}: {error}; please report it "
            "(TRACEKIT_DEBUG=1 shows the whole trace)".replace("\n", " "),
            err=True,
        )
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
