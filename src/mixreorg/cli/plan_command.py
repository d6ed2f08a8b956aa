"""``mixreorg plan``: what a run will take."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixreorg.errors import MixreorgError

if TYPE_CHECKING:
    from mixreorg.text.tokenizer import Tokenizer
    from mixreorg.train.config import TrainConfig
    from mixreorg.train.planning.plan import DataFacts, Plan


def plan(
    recipe: Annotated[str | None, typer.Argument(help="Named recipe, for example mixreorg_vits_cc12m.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON: a whole configuration, or changes to the recipe.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override one value: --set batch_size=1024. Repeatable.")
    ] = None,
    devices: Annotated[int, typer.Option(help="Devices of the run, one process each.", min=1)] = 1,
    kind: Annotated[
        str, typer.Option(help="Kind of device: a100-80, h100, 4090, ...; this: this machine, tried for some seconds.")
    ] = "this",
    data: Annotated[
        list[str] | None,
        typer.Option(help="Shards, folders or captions files to count, measure and read from. Repeatable."),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Pairs per epoch, where there is no --data.", min=1, show_default=False)
    ] = None,
    bytes_per_pair: Annotated[
        float | None, typer.Option(help="Bytes of an image file with its caption.", min=1, show_default=False)
    ] = None,
    pictures_per_core: Annotated[
        float | None,
        typer.Option(
            help="Pictures per second that a core decodes; default: measured here.", min=1, show_default=False
        ),
    ] = None,
    text_length: Annotated[
        int | None,
        typer.Option(help="Tokens of a batch's longest caption; default: the most.", min=2, show_default=False),
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(help="Share of the peak, as a log line of such a run says.", min=0.001, max=1, show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what a run will take on given devices: memory, operations, reading, time; nothing is trained."""
    from mixreorg.console import plain_console
    from mixreorg.train.planning.hardware import available_device
    from mixreorg.train.planning.hardware import kind as named_kind
    from mixreorg.train.planning.report import print_plan
    from mixreorg.train.precision import has_bf16
    from mixreorg.train.setup import resolve

    bf16 = has_bf16(available_device().type) if kind == "this" else named_kind(kind).has_bf16
    run, tokenizer = resolve(_configure(recipe, config, data, assignments), bf16=bf16)
    facts = _facts(run, tokenizer, devices, pairs, bytes_per_pair, pictures_per_core, text_length)
    result = _plan(run, kind, devices, facts, mfu)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        print_plan(result, plain_console())


def _configure(
    recipe: str | None, config: Path | None, data: list[str] | None, assignments: list[str] | None
) -> "TrainConfig":
    from mixreorg.recipes import configure

    if recipe is None and config is None:
        raise MixreorgError("name a recipe (mixreorg plan mixreorg_vits_cc12m) or a configuration (--config run.yaml)")
    return configure(recipe, config, {"data": {"train": data}} if data else {}, assignments or [])


def _facts(
    config: "TrainConfig",
    tokenizer: "Tokenizer",
    devices: int,
    pairs: int | None,
    bytes_per_pair: float | None,
    pictures_per_core: float | None,
    text_length: int | None,
) -> "DataFacts":
    """What the user says of the data, else what a look at them says, else what is assumed."""
    from mixreorg.train.planning.calibration import WAITING, longest_caption, measure_reading, shard_bytes
    from mixreorg.train.planning.plan import BYTES_PER_PAIR, DataFacts, share_of
    from mixreorg.train.setup import open_source

    source = open_source(config) if config.data.train else None
    notes = []
    if source is not None:
        pairs = pairs or len(source)
        size = shard_bytes(config.data.train)
        bytes_per_pair = bytes_per_pair or (size / len(source) if size else None)
        text_length = text_length or longest_caption(source, tokenizer, share_of(config, devices))
    if bytes_per_pair is None:
        bytes_per_pair = BYTES_PER_PAIR
        notes.append(f"reading: {bytes_per_pair / 1000:.0f} kB per pair is assumed; give --bytes-per-pair")
    if pictures_per_core is None:
        speed = measure_reading(config, tokenizer, source)
        pictures_per_core = speed.per_second
        what = "the data given" if source is not None else "a synthetic picture of 512 x 384 px"
        notes.append(f"reading: pictures/s were measured on a core of this machine, on {what}")
        if source is not None and speed.waiting > WAITING:
            notes.append(
                f"reading: took {speed.waiting:.1f} times its processor time: it waits for storage, or this machine "
                "was busy; plan again while it is quiet, or give --pictures-per-core"
            )
    if text_length is None:
        text_length = tokenizer.context_length
        notes.append(f"captions: reckoned with the context length of {text_length} tokens; shorter ones take less")
    return DataFacts(pairs, bytes_per_pair, pictures_per_core, text_length, tuple(notes))


def _plan(config: "TrainConfig", kind: str, devices: int, facts: "DataFacts", mfu: float | None) -> "Plan":
    from mixreorg.train.planning.calibration import measure_step
    from mixreorg.train.planning.hardware import available_device
    from mixreorg.train.planning.plan import known_machine, make_plan, share_of, this_machine

    if kind != "this":
        return make_plan(config, known_machine(config, kind, devices), facts, mfu=mfu)
    share = share_of(config, devices)
    device = available_device()
    step_time = None
    if mfu is None:
        step_time = measure_step(config, share, text_length=facts.text_length, processes=devices)
    return make_plan(config, this_machine(config, device, devices), facts, mfu=mfu, step_time=step_time)
