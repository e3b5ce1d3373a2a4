"""What `make docs` adds to the pages of this folder: the README, the benchmarks, the reference."""

import importlib
import posixpath
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Pages from elsewhere in the project, by their place in it.
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changes.md",
}
FOLDERS = ("data", "distill", "evaluation", "models", "package", "receive", "training")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def source_of(page: str) -> str:
    """The place in the project of a page of the site."""
    return {site: source for source, site in PAGES.items()}.get(page, f"docs/{page}")


def rewrite(text: str, source: str) -> str:
    """Turns links that hold in the project into links that hold on the site.

    What the site does not have, as code and configs, is named without a link.
    """

    def replaced(match: re.Match) -> str:
        image, words, target, anchor = match[1], match[2], match[3], match[4] or ""
        if ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in PAGES:
            return f"{image}[{words}]({PAGES[path]}{anchor})"
        if path.startswith("docs/") and not path.endswith(".py"):
            return f"{image}[{words}]({path.removeprefix('docs/')}{anchor})"
        if image or path.endswith(".svg"):
            return f"{image}[{words}]({path})"
        return words

    return _LINK.sub(replaced, text)


def _targets(module: str, names: list[str]) -> dict[str, str]:
    """Where public functions and classes are defined, by name."""
    objects = {name: getattr(importlib.import_module(module), name) for name in names}
    return {
        name: f"{of.__module__}.{of.__qualname__}"
        for name, of in objects.items()
        if hasattr(of, "__qualname__") and str(of.__module__).startswith("gxdistill")
    }


def reference() -> str:
    """The page of the public names: those of the package's root, then the folders' others."""
    lines, told = ["# Reference", ""], set()
    for module in ("gxdistill", *(f"gxdistill.{folder}" for folder in FOLDERS)):
        lines += ["", f"## `{module}`", ""]
        names = importlib.import_module(module).__all__
        for name, target in _targets(module, [*names]).items():
            if target not in told:
                told.add(target)
                options = [f"      heading: {name}", f"      toc_label: {name}"]
                lines += [f"::: {target}", "    options:", *options, ""]
    return "\n".join(lines)


def commands() -> str:
    """The page of the commands: what each prints on `--help`."""
    from gxdistill.cli.distillation import COMMANDS as JOBS
    from gxdistill.cli.packages import COMMANDS as PACKAGES
    from gxdistill.cli.segmentation import COMMANDS as SEGMENTATION

    lines = ["# Commands", ""]
    for command in (*JOBS, *PACKAGES, *SEGMENTATION):
        words = [sys.executable, "-m", "gxdistill", *command.name.split(), "--help"]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        lines += [f"## `gxdistill {command.name}`", "", "```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


def on_files(files, config):
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for plot in sorted((ROOT / "benchmarks/plots").glob("*.svg")):
        files.append(
            File.generated(config, f"benchmarks/plots/{plot.name}", abs_src_path=str(plot))
        )
    files.append(File.generated(config, "reference.md", content=reference()))
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def on_page_markdown(markdown, page, **_):
    return rewrite(markdown, source_of(page.file.src_uri))
