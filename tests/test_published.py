"""What a stranger is told who has the project's files and finds it on no index."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import gxdistill
from tests.test_architecture import ROWS

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "benchmarks", "configs", "docs", "gxdistill", "tests")
TEXTS = {".cff", ".md", ".py", ".toml"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# A name that pip would look for on an index; not a path, and not the file of a wheel. The second:
# wherever the line is broken.
FROM_AN_INDEX = re.compile(
    r"pip install(?: [^\s`]*[^\s`.,;:])* ['\"]?gxdistill(?![\w-])|'gxdistill\[[a-z]"
)


def _texts():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    paths += [path for path in ROOT.iterdir() if path.is_file()]
    return [path for path in paths if path.suffix in TEXTS or path.name == "Makefile"]


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("pip install '{}[dicom]'", True),
        ("pip install\n'{}[tfds]'", True),
        ("pip install --quiet -U {}", True),
        ("pip install '.[dicom]'", False),
        ("pip install 'gxdistill-0.1.0-py3-none-any.whl[dicom]'", False),
        ("pip install pydicom, and {} reads it", False),
        ("pip install '.[plan]'\n{} plan", False),
    ],
)
def test_the_pattern_knows_what_pip_would_look_for(text, is_refused):
    assert bool(FROM_AN_INDEX.search(text.format("gxdistill"))) == is_refused


def test_no_text_tells_to_install_the_project_from_an_index():
    lines = [
        f"{path.relative_to(ROOT)}: {match[0]!r}"
        for path in _texts()
        for match in FROM_AN_INDEX.finditer(path.read_text("utf-8"))
    ]
    assert lines == []


def test_the_change_log_and_the_citation_know_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == gxdistill.__version__
    log = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(.+?)\]", log, re.M)
    assert headings[:2] == ["Unreleased", gxdistill.__version__]


def test_the_citation_has_what_the_form_demands():
    """Of https://github.com/citation-file-format/citation-file-format/blob/main/schema-guide.md."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"authors", "message", "title"} <= set(citation)
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["authors"] == PROJECT["project"]["authors"]
    readme = (ROOT / "README.md").read_text("utf-8")
    for reference in citation["references"]:
        assert {"authors", "title", "type"} <= set(reference)
        (number,) = (of["value"] for of in reference["identifiers"])
        assert number.removeprefix("arXiv:") in readme


def test_the_source_distribution_names_what_is_there():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert [name for name in included if not (ROOT / name).exists()] == []
    assert {*FOLDERS, "Makefile", "constraints.txt"} <= set(included)


def test_a_fifth_task_is_told_in_ten_lines():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Adding a fifth task")[2]
    assert len(re.findall(r"^\d+\.", text, re.M)) == 10
    named = set(re.findall(r"`((?:gxdistill|tests)/[\w/]+(?:\.py|/))`", text))
    assert [path for path in named if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_table_of_layers_is_that_which_is_enforced():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    lines = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    units = [{unit.split(".")[0] for unit in row if unit[0] != "_"} for row in ROWS]
    assert [int(row) for row, _ in lines] == list(range(len(lines)))
    named = [set(re.findall(r"`([a-z]+)/?`", what)) for _, what in lines]
    assert named == [row for row in units if row]
