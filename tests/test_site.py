import importlib.util
import posixpath
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GENERATED = {"commands.md", "reference.md"}


@pytest.fixture(scope="module")
def site():
    spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / "docs/site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages():
    text = (ROOT / "mkdocs.yml").read_text()
    return [page for entry in yaml.safe_load(text)["nav"] for page in entry.values()]


def test_the_navigation_has_every_page_once(site, pages):
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(pages) == sorted(written | GENERATED | set(site.PAGES.values()))


def test_every_link_of_the_site_leads_somewhere(site, pages):
    links = 0
    for page in set(pages) - GENERATED:
        source = site.source_of(page)
        text = site.rewrite((ROOT / source).read_text(), source)
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text):
            links += 1
            exists = any((ROOT / folder / target).is_file() for folder in ("docs", "."))
            assert target in pages or exists, (page, target)
            assert posixpath.normpath(target) == target
    assert links > 20


def test_the_reference_has_the_public_names(site):
    page = site.reference()
    for target in ("gxdistill.distill.unroll.unroll", "gxdistill.models.zoo.create"):
        assert page.count(f"::: {target}\n") == 1
