"""``mixreorg data check``: index shards and report what is missing, damaged or doubtful."""

from pathlib import Path
from typing import Annotated, Any

import typer

_EXIT_CODES = (
    "Exit code 0: nothing worth naming.",
    "Exit code 1: suspects, which training skips or survives: damaged, tiny or repeated images, captions that say "
    "nothing of their image, and the like.",
    "Exit code 2: serious: missing, unreadable, truncated or damaged shards, shards with fewer pairs than the "
    "statistics file beside them counts, fewer usable pairs than --expect by more than --tolerance, no usable pair; "
    "or a wrong command.",
    "Kinds of findings that are named by --allow do not count.",
)


def check(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC...",
            help="Shards (braces and globs), folders of shards, captions files; what is not there is a finding.",
            show_default=False,
        ),
    ],
    expect: Annotated[
        int | None, typer.Option(help="Nominal number of usable pairs, for example 12423374 for CC12M.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Share of --expect that may be missing before that is serious.")
    ] = 0.01,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and report.html, with pictures.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.", show_default=False)] = None,
    sample: Annotated[
        int | None,
        typer.Option(help="Look into so many pairs only, evenly spread; default: all.", show_default=False),
    ] = None,
    index: Annotated[
        bool, typer.Option("--index/--no-index", help="Write the index of each shard without one.")
    ] = True,
    index_dir: Annotated[
        Path | None, typer.Option(help="Folder for the indexes; default: beside the shards.", show_default=False)
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder for copies of remote shards; default: the user's.", show_default=False)
    ] = None,
    cache_gb: Annotated[float, typer.Option(help="Size of that folder in GB.")] = 50.0,
    min_side: Annotated[int, typer.Option(help="Images with a shorter side, in pixels, are tiny.")] = 32,
    max_aspect: Annotated[float, typer.Option(help="Images with a larger ratio of the sides are extreme.")] = 5.0,
    tokenizer: Annotated[
        str, typer.Option(help="Measures captions: clip, or a file of mixreorg data tokenizer.")
    ] = "clip",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="A kind of finding that is expected, for example duplicate_image; repeatable.", show_default=False
        ),
    ] = None,
) -> None:
    """Index shards, and report what is missing, damaged or doubtful in them."""
    # Imported here: these load numpy and torch, which the help of other commands does not need.
    from mixreorg.console import plain_console
    from mixreorg.data.doctor.check import check_pairs
    from mixreorg.data.doctor.console import print_summary
    from mixreorg.data.doctor.page import write_report
    from mixreorg.data.doctor.report import CheckConfig
    from mixreorg.files import require_writable

    values: dict[str, Any] = {
        "expect": expect,
        "tolerance": tolerance,
        "min_side": min_side,
        "max_aspect": max_aspect,
        "sample": sample,
        "tokenizer": tokenizer,
        "allow": allow or [],
        "index": index,
        "index_dir": None if index_dir is None else str(index_dir),
        "cache_dir": None if cache_dir is None else str(cache_dir),
        "cache_gb": cache_gb,
        "workers": workers,
    }
    try:
        config = CheckConfig.from_dict(values, source="data check")
        if out is not None:  # at once, not after hours of checking
            require_writable(out / "report.json")
        report = check_pairs(specs, config, plain_console(stderr=True))
    except KeyboardInterrupt:
        typer.echo("interrupted; finished shards keep their indexes, so the next check begins faster", err=True)
        raise typer.Exit(130) from None
    print_summary(report, plain_console())
    if out is not None:
        write_report(report, out)
        typer.echo(f"report: {out / 'report.html'}, {out / 'report.json'}")
    raise typer.Exit(report.exit_code)


# A line break in a docstring would be one in the help.
check.__doc__ = "\n\n".join((str(check.__doc__), *_EXIT_CODES))
