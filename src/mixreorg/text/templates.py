"""Prompt templates: sentences with a place for a class name or a noun.

The wordings are CLIP's (Radford et al., 2021, https://github.com/openai/CLIP, MIT, see CLIP_LICENSE).
"""

import re
from typing import Literal

TemplateSet = Literal["simple", "subset", "full"]

# Tokens that a noun and the ends of a text take in a long prompt.
_NOUN_TOKENS, _CONTROL_TOKENS = 4, 2

_PHOTOS = (
    "bad", "black and white", "blurry", "bright", "close-up", "cropped", "dark", "good", "jpeg corrupted",
    "low resolution", "pixelated",
)  # fmt: skip
_MEDIA = (
    "a doodle", "a drawing", "a painting", "a photo", "a rendering", "a rendition", "a sculpture", "a sketch",
    "a tattoo", "art", "graffiti", "itap",
)  # fmt: skip
_LOOKS = ("clean", "cool", "dirty", "hard to see", "large", "nice", "small", "weird")
_MATERIALS = ("cartoon", "embroidered", "origami", "plastic", "plushie", "toy")


def _full() -> tuple[str, ...]:
    """CLIP's 80 templates for ImageNet: 38 with either article, and four more."""
    pairs = [
        template
        for article in ("a", "the")
        for template in (
            *(f"a {photo} photo of {article} {{}}." for photo in _PHOTOS),
            *(f"{medium} of {article} {{}}." for medium in _MEDIA),
            *(f"a photo of {article} {look} {{}}." for look in _LOOKS),
            *(f"{article} {material} {{}}." for material in _MATERIALS),
            f"{article} {{}} in a video game.",
        )
    ]
    return (*pairs, "a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}.")


TEMPLATES: dict[TemplateSet, tuple[str, ...]] = {
    "simple": ("a photo of a {}.",),
    "subset": (
        "itap of a {}.",
        "a bad photo of a {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "full": _full(),
}
"""``simple``: the one of zero-shot segmentation; ``subset``: 7 for classification; ``full``: all 80."""


def prompt_length(name: TemplateSet) -> int:
    """Tokens of a long prompt: words and marks of the longest template, a noun, start and end. An estimate."""
    return max(len(re.findall(r"\w+|[^\w\s{}]", text)) for text in TEMPLATES[name]) + _NOUN_TOKENS + _CONTROL_TOKENS
