"""What README.md, docs/sending.md, docs/audit.md and docs/receiving.md say is done.

Every ```python block runs. A ```bash block runs if `<!-- test -->` stands on the line above it.
Those below `<!-- test: slow -->`, of all pages, run one after the other, as a reader would type
them, in one folder: a package that one page makes is there for the next. All run from the project
root, with the `:smoke` variant of each config that names none, with `runs/` in a fresh folder, and
with FOLDER replaced by a folder of phantoms.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from gxdistill.cli.config import read
from gxdistill.data import phantom

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/sending.md",
    "docs/audit.md",
    "docs/receiving.md",
    "docs/segmentation.md",
    "docs/federation.md",
)
OTHERS = ("docs/accelerators.md", "docs/data.md", "docs/format.md", "docs/hosts.md")


class Block(NamedTuple):
    line: int
    language: str
    mark: str  # "test", "test: slow" or ""
    code: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, with the number of their first line."""
    pattern = r"^(?:<!-- (test(?:: slow)?) -->\n)?```(\w*)\n(.*?)^```$"
    fenced = []
    for match in re.finditer(pattern, text, re.M | re.S):
        line = text.count("\n", 0, match.start(3)) + 1
        fenced.append(Block(line, match[2], match[1] or "", match[3]))
    return fenced


def smoke(code: str, runs: Path, folder: Path) -> str:
    """The commands at the size of a test."""
    code = re.sub(r"((?:configs/\w+\.py|--config=\w+))(?![\w:./])", r"\1:smoke", code)
    code = re.sub(r"\bFOLDER\b", str(folder), code)
    return re.sub(r"(?<![\w/])runs/", f"{runs}/", code)


def missing(text: str, folder: Path, root: Path) -> list[str]:
    """What a text links to from its `folder`, or names as a config of `root`, and is not there."""
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) + re.findall(
        r"(?:src|href)=\"([^\"#]+)", text
    )
    files = {link for link in links if not re.match(r"[a-z]+:", link)}
    gone = {file for file in files if not (folder / file).exists()}
    configs = set(re.findall(r"configs/\w+\.py", text))
    return sorted(gone | {config for config in configs if not (root / config).exists()})


def lost_anchors(text: str, path: Path) -> list[str]:
    """What a text links to within pages, `path` being its own, and no heading is called."""
    lost = []
    for file, anchor in re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", text):
        page = (path.parent / file).read_text("utf-8") if file else text
        titles = re.findall(r"^#+ (.+)$", page, re.M)
        slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        lost += [f"{file}#{anchor}"] * (anchor not in slugs)
    return lost


def _of(language: str, mark: str) -> list:
    return [
        pytest.param(page, block, id=f"{page}:{block.line}")
        for page in PAGES
        for block in blocks((ROOT / page).read_text("utf-8"))
        if (block.language, block.mark) == (language, mark)
    ]


def _run(page: str, block: Block, runs: Path, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", smoke(block.code, runs, folder)],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{page}:{block.line}\n{run.stdout}\n{run.stderr}"


def _write_phantoms(folder: Path, commands: str) -> None:
    """Writes images of the size that the first config of the commands works on."""
    size = read(re.search(r"--config=(\w+)", commands)[1] + ":smoke", []).data.size
    folder.mkdir()
    for i, image in enumerate(phantom.phantom_cohort(0, patients=4, size=size).images):
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")


@pytest.mark.parametrize(("page", "block"), _of("python", ""))
def test_a_python_block_runs(page, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's line
    exec(compile(code, str(ROOT / page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("page", "block"), _of("bash", "test"))
def test_a_marked_command_runs(page, block, tmp_path):
    _run(page, block, tmp_path / "runs", tmp_path)


@pytest.mark.slow
def test_the_commands_of_all_pages_run_one_after_the_other(tmp_path):
    marked = [param.values for param in _of("bash", "test: slow")]
    folder, runs = tmp_path / "images", tmp_path / "runs"
    _write_phantoms(folder, "".join(block.code for _, block in marked))
    for page, block in marked:
        _run(page, block, runs, folder)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/README.md", *OTHERS])
def test_every_file_named_is_there(page):
    path = ROOT / page
    assert missing(path.read_text("utf-8"), path.parent, ROOT) == []
    assert lost_anchors(path.read_text("utf-8"), path) == []


def test_blocks_are_found_with_their_marks_and_lines():
    text = "# A\n```python\na = 1\n```\n\n<!-- test -->\n```bash\nls\nls\n```\n```\nno\n```\n"
    assert blocks(text) == [
        Block(3, "python", "", "a = 1\n"),
        Block(8, "bash", "test", "ls\nls\n"),
        Block(12, "", "", "no\n"),
    ]
    assert blocks("<!-- test: slow -->\n```bash\nls\n```\n") == [
        Block(3, "bash", "test: slow", "ls\n")
    ]


def test_commands_run_at_the_size_of_a_test():
    command = (
        "gxdistill train --config=configs/a.py --workdir=runs/a && ls configs/b.py:full x/runs/\n"
        "gxdistill preview --config=a --config.data.path=FOLDER --config=b:c --config=../d.py\n"
    )
    assert smoke(command, Path("/t"), Path("/f")) == (
        "gxdistill train --config=configs/a.py:smoke --workdir=/t/a"
        " && ls configs/b.py:full x/runs/\n"
        "gxdistill preview --config=a:smoke --config.data.path=/f --config=b:c --config=../d.py\n"
    )


def test_a_broken_link_and_an_unheard_of_config_are_caught(tmp_path):
    (tmp_path / "there.md").touch()
    text = (
        "[a](there.md#part) [b](gone.md) [c](https://x.org/y) [d](#part) ![e](gone.png 'title')\n"
        '<img src="lost.png">\n`gxdistill train --config=configs/unheard_of.py:smoke`\n'
    )
    assert missing(text, tmp_path, tmp_path) == [
        "configs/unheard_of.py",
        "gone.md",
        "gone.png",
        "lost.png",
    ]


def test_a_link_to_no_heading_is_caught(tmp_path):
    (tmp_path / "other.md").write_text("# A hospital's cohort\n")
    text = "## On a GPU\n[a](#on-a-gpu) [b](#gone) [c](other.md#a-hospitals-cohort) [d](other.md#x)"
    assert lost_anchors(text, tmp_path / "page.md") == ["#gone", "other.md#x"]
