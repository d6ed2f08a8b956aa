"""Make the documentation site from docs/*.md, the pages beside them and the code.

python docs/make_site.py          # build/site/html, an error for every link that leads nowhere
python docs/make_site.py --serve  # the same on http://localhost:8000
"""

import argparse
import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from site_pages import generated_pages, markdown

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "site"

NAVIGATION: dict[str, dict[str, str]] = {
    "Start": {
        "Home": "README.md",
        "Tutorial": "docs/tutorial.md",
        "How MixReorg works": "docs/how_it_works.md",
        "Questions": "docs/faq.md",
        "Limits": "docs/limits.md",
    },
    "Masks": {
        "Segmenting photos": "docs/segmenting.md",
        "Honest masks": "docs/honest_masks.md",
        "Finer masks": "docs/finer_masks.md",
        "Web page and API": "docs/serve.md",
        "Weights": "docs/weights.md",
        "Export": "docs/export.md",
    },
    "Training": {
        "Training": "docs/training.md",
        "Recipes": "docs/recipes.md",
        "Configuration": "docs/configuration.md",
        "Scenes": "docs/scenes.md",
        "Ablations": "docs/ablate.md",
        "Results": "docs/results.md",
        "What they say": "docs/findings.md",
    },
    "Evaluation": {
        "Zero-shot evaluation": "docs/evaluation.md",
        "Data sets": "docs/benchmarks.md",
        "Protocols": "docs/protocols.md",
    },
    "Reference": {
        "Commands": "docs/commands.md",
        "API": "docs/api.md",
        "Architecture": "docs/architecture.md",
        "Measured speed": "benchmarks/README.md",
        "Contributing": "CONTRIBUTING.md",
        "Changes": "CHANGELOG.md",
    },
}
"""Pages by section and title, as paths in the repository. A page that is not there is left out; one of docs that is
not named comes last in Reference."""

_CODE_OR_LINK = re.compile(r"^```.*?^```|`[^`\n]+`|(!?\[[^\]]*\]\()([^)#\s]*)(#[^)\s]*)?\)", re.DOTALL | re.MULTILINE)
"""Code is matched so that what looks like a link inside it is passed over; a link may have code in its words."""


def page_name(path: str) -> str:
    """Name on the site of a page of the repository."""
    return {"README.md": "index.md", "benchmarks/README.md": "speed.md"}.get(path, PurePosixPath(path).name.lower())


def assemble(folder: Path) -> None:
    """Write configuration and sources of the site; links to files outside become copies of those files.

    Args:
        folder: made anew.

    Raises:
        SystemExit: a link leads to no file of the repository.
    """
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    shutil.copytree(ROOT / "docs" / "images", pages / "images")
    for path in (ROOT / "src").rglob("*.py"):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(markdown(path.read_text(encoding="utf-8")), encoding="utf-8")
    generated = generated_pages()
    written = {f"docs/{name}" for name in generated}
    for name, text in generated.items():
        (pages / name).write_text(text, encoding="utf-8")
    named = {path for section in NAVIGATION.values() for path in section.values()}
    others = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    for path in sorted((named | others) - written):
        if (ROOT / path).is_file():
            written.add(path)
            text = (ROOT / path).read_text(encoding="utf-8")
            (pages / page_name(path)).write_text(relink(text, path, pages), encoding="utf-8")
    settings = (ROOT / "docs" / "site.toml").read_text(encoding="utf-8")
    navigation = f"[project]\nnav = {_navigation(written)}\n"
    (folder / "zensical.toml").write_text(settings.replace("[project]\n", navigation, 1), encoding="utf-8")


def relink(text: str, path: str, pages: Path) -> str:
    """A page's text with its relative links as the site has them.

    Args:
        text: Markdown.
        path: of the page in the repository.
        pages: folder of the site's sources, which linked files other than pages are copied to.
    """
    return _CODE_OR_LINK.sub(functools.partial(_site_link, path=path, pages=pages), text)


def build(folder: Path) -> int:
    """Build the assembled site; its exit status, which a link or anchor that leads nowhere makes 1."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, check=False).returncode


def main() -> None:
    """Build, and serve if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for sources and pages")
    parser.add_argument("--serve", action="store_true", help="serve the pages on this machine")
    arguments = parser.parse_args()
    assemble(arguments.out)
    status = build(arguments.out)
    if status:
        sys.exit(status)
    print(f"{arguments.out / 'html' / 'index.html'}")
    if arguments.serve:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=arguments.out / "html")
        print("http://localhost:8000")
        http.server.ThreadingHTTPServer(("localhost", 8000), handler).serve_forever()


def _navigation(written: set[str]) -> str:
    """The navigation as a TOML array of inline tables."""
    sections = {
        name: [(title, path) for title, path in section.items() if path in written]
        for name, section in NAVIGATION.items()
    }
    named = {path for section in NAVIGATION.values() for path in section.values()}
    sections["Reference"] += [(PurePosixPath(path).stem.replace("_", " "), path) for path in sorted(written - named)]
    tables = []
    for name, entries in sections.items():
        items = ", ".join(f"{{ {json.dumps(title)} = {json.dumps(page_name(path))} }}" for title, path in entries)
        tables.append(f"{{ {json.dumps(name)} = [{items}] }}")
    return f"[{', '.join(tables)}]"


def _site_link(match: re.Match[str], *, path: str, pages: Path) -> str:
    opening, target, anchor = match.group(1), match.group(2), match.group(3) or ""
    if not opening or not target or "://" in target or target.startswith("mailto:"):
        return match.group(0)
    file = (ROOT / path).parent.joinpath(target).resolve()
    if not file.exists():
        sys.exit(f"{path}: the link to {target} leads nowhere")
    name = file.relative_to(ROOT).as_posix()
    if name.startswith("docs/images/"):
        return f"{opening}{name.removeprefix('docs/')}{anchor})"
    if name.endswith(".md"):
        return f"{opening}{page_name(name)}{anchor})"
    if file.is_dir():  # the site has no listing of folders: the words alone
        return opening.removeprefix("[").removesuffix("](")
    copy = pages / "files" / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, copy)
    return f"{opening}files/{name}{anchor})"


if __name__ == "__main__":
    main()
