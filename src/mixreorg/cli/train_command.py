"""``mixreorg train``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mixreorg.errors import MixreorgError


def train(
    out: Annotated[Path, typer.Option(help="Run folder: checkpoints, logs, configuration.")],
    recipe: Annotated[str | None, typer.Option(help="Named recipe, for example scenes_mixreorg.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON: a whole configuration, or changes to --recipe.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Model to start from, with its architecture, tokenizer and protocol: scenes-tiny, a model, checkpoint "
            "or run folder, a GroupViT of transformers or .pth, OWNER/NAME on the hub.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Shard pattern, folder or captions file; may be given several times."),
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option(help="Folder in VOC layout with a classes.txt, evaluated at intervals.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override one value: --set optim.lr=1e-3. Repeatable.")
    ] = None,
    resume: Annotated[
        Literal["never", "auto"],
        typer.Option(help="auto: continue the run in --out from its newest intact checkpoint, or start one there."),
    ] = "never",
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to train.")] = "auto",
) -> None:
    """Pre-train a model on image-caption pairs.

    Several processes: torchrun --nproc-per-node 2 -m mixreorg train ...
    """
    from mixreorg.config import merge
    from mixreorg.interop.initialise import settings_of
    from mixreorg.recipes import configure
    from mixreorg.train.stopping import EXIT_CODES
    from mixreorg.train.trainer import train as run_training

    if resume == "auto" and recipe is None and config is None:
        config = out / "train_config.json"
        if not config.exists():
            raise MixreorgError(
                f"{out} holds no run to go on with; correct --out, or name a recipe (--recipe scenes_mixreorg) or a "
                "configuration file (--config run.yaml) to start one there"
            )
    if recipe is None and config is None:
        raise MixreorgError("name a recipe (--recipe scenes_mixreorg) or a configuration file (--config run.yaml)")
    changes: dict[str, object] = {}
    if data:
        changes["data"] = {"train": data}
    if evaluate is not None:
        changes["evaluation"] = {"root": str(evaluate)}
    start = settings_of(init) if init is not None else {}
    resolved = configure(recipe, config, merge(start, changes), assignments or [])
    if not resolved.data.train:
        raise MixreorgError("no training data: give --data SHARDS, for example --data 'scenes/train/*.tar'")
    outcome = run_training(resolved, out, resume=resume, device=device)
    if outcome.stopped is not None:
        raise typer.Exit(EXIT_CODES[outcome.stopped])
