"""mixreorg: text-supervised open-world semantic segmentation.

>>> from mixreorg import Segmenter, load_model
>>> segmentation = Segmenter(load_model("demo/run"))("photo.jpg", ["dog", "cat", "grass"])
>>> segmentation.label_map, segmentation.class_names
"""

from typing import TYPE_CHECKING, Any

from mixreorg.errors import MixreorgError

if TYPE_CHECKING:
    from mixreorg.interop.convert import convert_model
    from mixreorg.interop.hub import push_to_hub
    from mixreorg.interop.loading import load_model
    from mixreorg.interop.pretrained import PretrainedSegmenter
    from mixreorg.segment.explain import Explanation, explain
    from mixreorg.segment.results import Segmentation
    from mixreorg.segment.segmenter import Segmenter

__version__ = "0.1.0"
__all__ = [
    "Explanation",
    "MixreorgError",
    "PretrainedSegmenter",
    "Segmentation",
    "Segmenter",
    "__version__",
    "convert_model",
    "explain",
    "load_model",
    "push_to_hub",
]

_LAZY = {
    "Explanation": "mixreorg.segment.explain",
    "PretrainedSegmenter": "mixreorg.interop.pretrained",
    "Segmentation": "mixreorg.segment.results",
    "Segmenter": "mixreorg.segment.segmenter",
    "convert_model": "mixreorg.interop.convert",
    "explain": "mixreorg.segment.explain",
    "load_model": "mixreorg.interop.loading",
    "push_to_hub": "mixreorg.interop.hub",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import mixreorg`` does not wait for torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'mixreorg' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
