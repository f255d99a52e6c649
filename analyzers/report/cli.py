"""`tracekit report`."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import click

from tracekit.formats.errors import InputError
from tracekit.formats.units import format_bytes, parse_duration_ns


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The page to write.")
@click.option("--from", "from_", metavar="TIME", help="Show the timeline from this virtual time on, for example 2.5s.")
@click.option("--to", metavar="TIME", help="Show the timeline up to this virtual time.")
@click.option("--policy", help="The publication policy whose formula is the truth. [default: the recorded one]")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: where the page is, and its size.")
def report(
    trace: Path,
    other: Path | None,
    output: Path,
    from_: str | None,
    to: str | None,
    policy: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """One page that shows TRACE, or TRACE and OTHER side by side; it opens in any browser, offline.

    Summary and verdict, findings with their proof, a timeline of who ran and who waited for whom, stolen time as it was and as it was
    told, distributions, hypercalls.
    Exit code 0: written, whatever was found; 2: trouble.
    """
    if output.exists() and not force:
        raise InputError(f"{output} exists; --force replaces it")
    if output.exists() and not output.is_file():
        raise InputError(f"{output} is no regular file; it is not replaced")
    from_ns = None if from_ is None else parse_duration_ns(from_)
    to_ns = None if to is None else parse_duration_ns(to)
    from tracekit.analyzers.report.bundle import library
    from tracekit.analyzers.report.make import page_of

    library()  # what is missing is said before the work is done
    page = page_of([one for one in (trace, other) if one is not None], from_ns=from_ns, to_ns=to_ns, policy=policy).encode(
        "utf-8", "backslashreplace"
    )
    part = output.with_name(f"{output.name}.part")  # an old page stays until the new one is whole
    try:
        part.write_bytes(page)
        part.replace(output)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None
    if as_json:
        click.echo(json.dumps({"page": str(output), "bytes": len(page)}))
    else:
        click.echo(f"wrote {output}, {format_bytes(len(page))}")
