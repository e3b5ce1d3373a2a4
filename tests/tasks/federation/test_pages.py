"""The pages of a federation say what is."""

from pathlib import Path

from gxdistill.tasks.federation import promises, settings

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_of_settings_is_what_the_table_says():
    assert (DOCS / "federation_settings.md").read_text() == settings.as_page()


def test_the_curve_on_the_page_is_what_the_command_prints():
    assert promises.curve_text(50, 0.01) in (DOCS / "federation.md").read_text()
