"""What README.md says is done.

Every ```python block runs. A ```bash block runs if `<!-- test -->` stands on the line above it, or
`<!-- test: slow -->` for minutes: from the project root, with the `:smoke` variant of each config
that names none, and with `runs/` in a fresh folder.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


class Block(NamedTuple):
    line: int
    language: str
    mark: str  # "test", "test: slow" or ""
    code: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, with the number of their first line."""
    pattern = r"^(?:<!-- (test(?:: slow)?) -->\n)?```(\w*)\n(.*?)^```$"
    found = []
    for match in re.finditer(pattern, text, re.M | re.S):
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Block(line, match[2], match[1] or "", match[3]))
    return found


def smoke(code: str, runs: Path) -> str:
    """The commands at the size of a test."""
    code = re.sub(r"(configs/\w+\.py)(?![\w:])", r"\1:smoke", code)
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


def _params(language: str) -> list:
    return [
        pytest.param(
            block, id=f"line{block.line}", marks=[pytest.mark.slow] * ("slow" in block.mark)
        )
        for block in blocks(README)
        if block.language == language and (block.mark or language == "python")
    ]


@pytest.mark.parametrize("block", _params("python"))
def test_a_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n" * (block.line - 1) + block.code  # so that a traceback names the README's line
    exec(compile(code, str(ROOT / "README.md"), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", _params("bash"))
def test_a_marked_command_runs(block, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", smoke(block.code, tmp_path / "runs")],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"README.md:{block.line}\n{run.stdout}\n{run.stderr}"


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_every_file_named_is_there(page):
    path = ROOT / page
    assert missing(path.read_text("utf-8"), path.parent, ROOT) == []


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
        "gxdistill train --config=configs/a.py --workdir=runs/a && ls configs/b.py:full x/runs/"
    )
    assert smoke(command, Path("/t")) == (
        "gxdistill train --config=configs/a.py:smoke --workdir=/t/a && ls configs/b.py:full x/runs/"
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
