"""Pages of the site that are made from the code: commands, recipes, protocols and the API reference."""

import functools
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import griffe
import torch
import typer
from typer.cli import get_docs_for_click

import mixreorg
from mixreorg.cli.main import app
from mixreorg.config import StrictConfig
from mixreorg.eval.protocols import PROTOCOLS, EvaluationProtocol
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.recipes import RECIPES, recipe
from mixreorg.train.config import TrainConfig

SOURCES = Path(mixreorg.__file__).parents[1]

API = {
    "Segmenting": (
        "mixreorg.segment.segmenter.Segmenter",
        "mixreorg.segment.results.Segmentation",
        "mixreorg.segment.explain.explain",
        "mixreorg.segment.explain.Explanation",
        "mixreorg.segment.protocol.Protocol",
        "mixreorg.text.class_list.ClassName",
        "mixreorg.text.class_list.parse_class_list",
    ),
    "Weights": (
        "mixreorg.interop.loading.load_model",
        "mixreorg.interop.convert.convert_model",
        "mixreorg.interop.hub.push_to_hub",
        "mixreorg.interop.pretrained.PretrainedSegmenter",
        "mixreorg.export.exporter.export_model",
        "mixreorg.export.runtime.ExportedSegmenter",
    ),
    "Evaluation": (
        "mixreorg.eval.evaluate.evaluate_split",
        "mixreorg.eval.protocols.EvaluationProtocol",
        "mixreorg.eval.protocols.find_protocol",
    ),
    "Training": (
        "mixreorg.recipes.recipe",
        "mixreorg.train.trainer.train",
        "mixreorg.models.dual_encoder.DualEncoder",
        "mixreorg.objectives.mixreorg.MixReorgObjective",
        "mixreorg.objectives.groupvit.GroupViTObjective",
    ),
    "Errors": ("mixreorg.errors.MixreorgError",),
}
"""Objects of the API reference by heading: the public names of the package, and what is used with them."""

_ROLE = re.compile(r":[a-z]+:`~?(?:[\w.]+\.)?(\w+)`")
_SESSION = re.compile(r"^( *)(>>> )", re.MULTILINE)


def generated_pages() -> dict[str, str]:
    """Markdown of every generated page by file name."""
    return {
        "commands.md": commands(),
        "recipes.md": recipes(),
        "protocols.md": protocols(),
        "api.md": api(),
        "configuration.md": configuration(),
    }


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` says them."""
    group = typer.main.get_command(app)
    for command in _all_commands(group):
        # Lists of commands would otherwise cut the first sentence off.
        command.short_help = (command.help or "").split("\n\n")[0].replace("\n", " ")
    text = get_docs_for_click(obj=group, ctx=typer.Context(group, info_name="mixreorg"), name="mixreorg")
    return text.replace("# `mixreorg`\n", "# Commands\n", 1).replace("```console\n$ ", "```console\n")


def recipes() -> str:
    """Every recipe: what it is, its size, and each value in which it differs from the default configuration."""
    machines = {name: function for name, function in RECIPES.items() if isinstance(function, functools.partial)}
    own = [name for name in RECIPES if name not in machines]
    lines = [
        "# Recipes",
        "",
        "Made from `mixreorg.recipes`. `mixreorg train --recipe NAME` runs one, `--set optim.lr=1e-3` changes a value;",
        "[Configuration](configuration.md) explains each. Parameters are counted with CLIP's vocabulary of 49,408;",
        "with a small one of your own the scenes recipes have 1.3 M.",
        "",
        "| recipe | objective | image | parameters | batch | steps | learning rate |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_recipe_row(name) for name in own),
    ]
    for name in own:
        text = (inspect.getdoc(RECIPES[name]) or "").replace("``", "`")
        lines += ["", f"## {name}", "", text, "", *_changes(recipe(name), TrainConfig())]
    lines += ["", "## Fitted to a machine", "", "The same runs and the same losses; only this differs:"]
    for name, function in machines.items():
        base = function.args[0].__name__
        lines += ["", f"### {name}", "", f"[{base}](#{base}), with", "", *_changes(recipe(name), recipe(base))]
    return "\n".join(lines) + "\n"


def protocols() -> str:
    """Every protocol of evaluation with its values."""
    lines = [
        "# Protocols",
        "",
        "Made from `mixreorg.eval.protocols`. [Zero-shot evaluation](evaluation.md#protocols) says what protocols are",
        "for and how own ones are written.",
    ]
    for protocol in PROTOCOLS.values():
        lines += ["", f"## {protocol.name}", "", f"Version {protocol.version}. Source: {protocol.source}.", ""]
        lines += _protocol_tables(protocol)
    return "\n".join(lines) + "\n"


def api() -> str:
    """References of the API page, resolved by mkdocstrings; public names that API does not list come last."""
    listed = {name.rpartition(".")[2] for names in API.values() for name in names}
    others = [name for name in mixreorg.__all__ if not name.startswith("__") and name not in listed]
    further = tuple(f"{getattr(mixreorg, name).__module__}.{name}" for name in others)
    lines = ["# API", "", "The names of `mixreorg.__all__` can be imported from `mixreorg` itself."]
    for heading, names in {**API, "Further": further}.items():
        if names:
            lines += ["", f"## {heading}", *_references(names)]
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """Every value of a run's configuration by its dotted name: type, default, meaning."""
    lines = [
        "# Configuration",
        "",
        "Every value of a training run, with its default. `--set optim.lr=1e-3` changes one, `--config run.yaml`",
        "several; a name that does not exist is refused with the nearest that does. [Training](training.md) says more.",
    ]
    package = griffe.load("mixreorg", search_paths=[SOURCES], resolve_aliases=False)
    for path, values in _sections("", TrainConfig()):
        kind = type(values)
        documented = package[kind.__module__.removeprefix("mixreorg.")][kind.__name__]
        summary = inspect.getdoc(kind) or ""
        lines += ["", f"## {path or 'The run'}", "", markdown(summary), ""]
        lines += ["| value | type | default | |", "| --- | --- | --- | --- |"]
        lines += [_value_row(path, name, values, documented) for name in kind.model_fields]
    return "\n".join(lines) + "\n"


def markdown(text: str) -> str:
    """Code or docstrings with plain code where they have roles of Sphinx, and code blocks where they have sessions."""
    return _SESSION.sub(r"\1    \2", _ROLE.sub(r"`\1`", text))


def _all_commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield command
        if hasattr(command, "commands"):
            yield from _all_commands(command)


def _sections(path: str, values: StrictConfig) -> Iterator[tuple[str, StrictConfig]]:
    """Parts of a configuration by dotted name, the whole first; of a choice, every alternative."""
    yield path, values
    for name, field in type(values).model_fields.items():
        current = getattr(values, name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(kind) and issubclass(kind, StrictConfig):
                inside = current if isinstance(current, kind) else kind()
                alternative = f" ({inside.kind})" if hasattr(inside, "kind") else ""
                yield from _sections(f"{path}.{name}".lstrip(".") + alternative, inside)


def _value_row(path: str, name: str, values: StrictConfig, documented: Any) -> str:
    value = getattr(values, name)
    attribute = documented.members.get(name)
    text = attribute.docstring.value if attribute is not None and attribute.docstring else ""
    kind = str(attribute.annotation) if attribute is not None else ""
    default = "below" if isinstance(value, StrictConfig) else _code(value)
    dotted = re.sub(r" \(\w+\)", "", f"{path}.{name}").lstrip(".")
    cells = (f"`{dotted}`", f"`{kind}`", default, markdown(text).replace("``", "`"))
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _references(names: tuple[str, ...]) -> list[str]:
    return [line for name in names for line in ("", f"::: {name}")]


def _recipe_row(name: str) -> str:
    config = recipe(name)
    with torch.device("meta"):
        parameters = sum(value.numel() for value in DualEncoder(config.model).parameters())
    cells = (
        f"[{name}](#{name})",
        config.objective.kind,
        f"{config.data.transform.image_size} px",
        f"{parameters / 1e6:.1f} M",
        f"{config.batch_size:,}",
        f"{config.steps:,}",
        f"{config.optim.lr:g}",
    )
    return f"| {' | '.join(cells)} |"


def _changes(config: TrainConfig, base: TrainConfig) -> list[str]:
    usual = dict(_flat(base.to_dict()))
    rows = [(key, value) for key, value in _flat(config.to_dict()) if usual.get(key, ...) != value and key != "recipe"]
    return ["| value | |", "| --- | --- |", *(f"| `{key}` | {_code(value)} |" for key, value in rows)]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _protocol_tables(protocol: EvaluationProtocol) -> list[str]:
    values = protocol.segmentation.to_dict()
    templates = values.pop("templates")
    rows = [(key, value) for key, value in values.items() if key not in {"name", "background_threshold"}]
    rows += [("naming", protocol.naming), ("number of templates", len(templates))]
    if protocol.background_threshold is not None:
        rows.append(("background_threshold", protocol.background_threshold))
    lines = ["| value | |", "| --- | --- |", *(f"| {key} | {_code(value)} |" for key, value in rows)]
    if protocol.rules:
        lines += ["", "| benchmark | differs in |", "| --- | --- |"]
        for name, rule in protocol.rules.items():
            changes = ", ".join(f"{key} {value:g}" for key, value in rule.to_dict().items() if value is not None)
            lines.append(f"| {name} | {changes} |")
    return [*lines, "", "Templates:", "", *(f"- `{template}`" for template in templates)]
