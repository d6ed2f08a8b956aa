"""The model card: ``README.md`` of a model folder, for people and for the hub."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, write_text
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.segment.request import Threshold

CARD, PICTURE = "README.md", "picture.png"
_RUN_CARD = "card.json"
# Values of an evaluation that are no percentages.
_NO_PERCENTAGE = ("step", "background_threshold")
_TAGS = ("groupvit", "mixreorg", "zero-shot-segmentation", "open-vocabulary")


@dataclass(frozen=True)
class CardFacts:
    """What a model card says that the weights do not show."""

    name: str | None = None
    """What the model is called, ``OWNER/NAME`` on the hub; by default its folder's name."""
    license: str | None = None
    """Licence of the weights as the hub writes it, such as ``apache-2.0``; by default the one that the card of the
    source names."""
    data: str | None = None
    """What the model was trained on, in words."""
    photo: Path | None = None
    """Photo for the card's picture."""
    classes: str | None = None
    """Class names for that photo."""
    background: Threshold = None
    """Background threshold of the picture; None: the protocol's."""
    credit: str | None = None
    """Whose works the training data are made of, and under which licence."""
    results: "CardResults | None" = None
    """An evaluation, in place of the one that is recorded with the weights."""
    limits: str | None = None
    """What the model cannot do, beside what no GroupViT can."""

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if (self.photo is None) != (self.classes is None):
            raise MixreorgError("the picture of a model card needs a photo and class names: give both, or neither")
        if self.background is not None and self.photo is None:
            raise MixreorgError("a background threshold is for the picture of a model card: give a photo as well")


@dataclass(frozen=True)
class CardResults:
    """An evaluation as a card shows it."""

    what: str
    """Model, data and protocol, in a sentence."""
    values: Mapping[str, float]
    """In percent, by name."""


@dataclass(frozen=True)
class CardModel:
    """The model that a card describes."""

    name: str
    config: DualEncoderConfig
    num_parameters: int
    protocol: dict[str, Any] | None
    """Values of the evaluation protocol it was trained to be used with."""
    is_hf: bool
    """Whether ``transformers`` reads the folder."""


def write_card(model: CardModel, facts: CardFacts, source: Path, folder: Path) -> None:
    """Write ``README.md``.

    Args:
        model: what the folder holds.
        facts: what its owner says of it.
        source: folder that the weights came from; its run card and its model card are read where it has them.
        folder: of the new model; it holds ``picture.png`` if one was made.

    Raises:
        MixreorgError: the file cannot be written, or a run card is damaged.
    """
    run = read_json(source / _RUN_CARD) if (source / _RUN_CARD).is_file() else {}
    run = run if isinstance(run, dict) else {}
    license_name = facts.license or license_of(source / CARD)
    sections = [
        _front_matter(license_name, model.is_hf),
        f"# {model.name}",
        _introduction(model),
        _picture(facts) if (folder / PICTURE).is_file() else "",
        _use(model),
        _architecture(model),
        _training(facts, run),
        _results(model, facts, run),
        _licence(license_name, facts),
        " ".join(filter(None, (_LIMITS, facts.limits))),
    ]
    write_text(folder / CARD, "\n\n".join(section for section in sections if section) + "\n")


def _front_matter(license_name: str | None, is_hf: bool) -> str:
    lines = [f"license: {_as_yaml(license_name)}"] if license_name else []
    lines += [f"library_name: {'transformers' if is_hf else 'mixreorg'}", "pipeline_tag: image-segmentation", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in _TAGS), "---"])


def _as_yaml(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][\w.+-]*( [\w.+-]+)*", text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def _from_yaml(text: str) -> str:
    """The text that a card writes bare or in quotes, perhaps with a comment behind it."""
    if double := re.fullmatch(r'"((?:[^"\\]|\\.)*)"(?: +#.*)?', text):
        return re.sub(r"\\(.)", r"\1", double[1])
    if single := re.fullmatch(r"'((?:[^']|'')*)'(?: +#.*)?", text):
        return single[1].replace("''", "'")
    return re.sub(r" +#.*", "", text)


def license_of(card: Path) -> str | None:
    """The licence that a model card names; None where there is no card or it names none."""
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
    # Not what YAML reads as a comment, a list, null or the text of other lines.
    pattern = r"^license:[ \t]+(?!null[ \t]*$)([^\s#\[{>|~&*!%@`].*?)[ \t]*$"
    named = re.search(pattern, front[1], flags=re.MULTILINE) if front else None
    return (_from_yaml(named[1]) or None) if named else None


def _introduction(model: CardModel) -> str:
    return (
        f"A GroupViT of {model.num_parameters / 1e6:.1f} M parameters, trained on image-caption pairs alone. It labels "
        "every pixel of a photo with one of the class names that it is given."
    )


def _picture(facts: CardFacts) -> str:
    background = "" if facts.background is None else f"; background: {facts.background}"
    return f"![Classes of a photo]({PICTURE})\n\n*{facts.classes}{background}*"


def _use(model: CardModel) -> str:
    lines = [
        "## Use",
        "",
        "```python",
        "from mixreorg import Segmenter, load_model",
        "",
        f'segmenter = Segmenter(load_model("{model.name}"))',
        'segmentation = segmenter("photo.jpg", ["dog", "cat", "grass"])',
        "```",
    ]
    if model.is_hf:
        lines += [
            "",
            "```python",
            "from transformers import AutoModel, AutoProcessor",
            "",
            f'model = AutoModel.from_pretrained("{model.name}")',
            f'processor = AutoProcessor.from_pretrained("{model.name}")',
            "```",
        ]
    return "\n".join(lines)


def _architecture(model: CardModel) -> str:
    image, text = model.config.image, model.config.text
    rows = {
        "training images": f"{image.image_size} px, patches of {image.patch_size} px",
        "image encoder": f"width {image.width}, heads {image.num_heads}, blocks {' + '.join(map(str, image.depths))}",
        "segments": " then ".join(map(str, image.num_segments)),
        "text encoder": f"width {text.width}, heads {text.num_heads}, blocks {text.depth}, {text.vocab_size:,} ids",
        "joint space": str(model.config.embed_dim),
    }
    return "\n".join(["## Architecture", "", "| | |", "| --- | --- |", *(f"| {key} | {rows[key]} |" for key in rows)])


def _training(facts: CardFacts, run: dict[str, Any]) -> str:
    lines = [facts.data or "The training data is not stated."]
    pairs = run.get("data", {}).get("num_pairs")
    if pairs is not None:
        lines.append(
            f"Recipe `{run.get('recipe')}`, {pairs:,} caption pairs, {run.get('step'):,} steps, seed {run.get('seed')}."
        )
    return "## Training\n\n" + "\n".join(lines)


def _recorded_results(run: dict[str, Any]) -> CardResults | None:
    """The evaluation of a run card, if it has one."""
    metrics = {
        name: value
        for name, value in run.get("metrics", {}).items()
        if name not in _NO_PERCENTAGE and isinstance(value, int | float)
    }
    evaluation = run.get("config", {}).get("evaluation", {})
    what = f"Split `{evaluation.get('split')}`, at most {evaluation.get('max_images')} images, percent; one seed."
    return CardResults(what, metrics) if metrics else None


def _results(model: CardModel, facts: CardFacts, run: dict[str, Any]) -> str:
    protocol = model.protocol
    lines = ["## Results", ""]
    results = facts.results or _recorded_results(run)
    if results is not None:
        rows = (f"| {name} | {value:.1f} |" for name, value in results.values.items())
        lines += [results.what, "", "| metric | value |", "| --- | --- |", *rows]
    else:
        lines.append("No evaluation is recorded with the weights.")
    if protocol is not None:
        lines += [
            "",
            f"Protocol `{protocol.get('name')}`: short side {protocol.get('short_side')} px, "
            f"window {'the whole photo' if protocol.get('whole') else protocol.get('window')}, "
            f"stride {protocol.get('stride')}, {_threshold(protocol)}, "
            f"templates {', '.join(protocol.get('templates', []))}",
        ]
    return "\n".join(lines)


def _threshold(protocol: dict[str, Any]) -> str:
    value = protocol.get("background_threshold")
    return "no background threshold" if value is None else f"background threshold {value}"


def _licence(name: str | None, facts: CardFacts) -> str:
    text = name or "Not stated: ask the owner of the weights before you use them."
    return "\n\n".join(filter(None, ("## Licence", text, facts.credit)))


_LIMITS = (
    "## Limits\n\nAt most as many regions per window as the model has segments; borders follow its patch grid. Names "
    "that its captions never used are guesses. Biases of the captions are in the model."
)
