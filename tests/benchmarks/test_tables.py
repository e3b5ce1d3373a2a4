import dataclasses
import json
import re

import pytest

from benchmarks import summary, tables
from benchmarks.record import Figure, read
from gxdistill.errors import UserError

FIGURE = Figure(
    case="a",
    metric="hm",
    value=0.51239,
    std=None,
    n=1,
    unit="1",
    command="make a",
    commit="0123456789ab",
    device="CPU: X, 2 cores",
    jax="0.10.2",
    cpu_s=3.0,
    wall_s=2.0,
    date="2026-01-02T03:04:05+00:00",
)
TABLE = tables.Table(cases=("a", "b"), metrics=("hm", "package_bytes"))


def _figure(**changes):
    return dataclasses.replace(FIGURE, **changes)


def test_the_pages_show_the_recorded_figures():
    pages = [page.name for page in tables.stale(tables.PAGES, tables.RESULTS)]
    assert not pages, f"stale: {pages}; run: python -m benchmarks.tables"


def test_every_declared_table_stands_on_a_page():
    text = "".join(page.read_text() for page in tables.PAGES)
    assert set(re.findall(r"<!-- table:(\w+) -->", text)) == set(tables.NAMES)


def test_a_table_shows_the_latest_figures_and_their_commands():
    figures = [
        FIGURE,
        _figure(value=0.6, std=0.0456, n=5, commit="ba9876543210"),
        _figure(metric="package_bytes", value=123456, commit="ba9876543210"),
        _figure(metric="not_shown", command="make nothing", device="TPU v9"),
    ]
    assert tables.render(TABLE, figures) == (
        "| case | device | hm | package_bytes |\n"
        "| --- | --- | --- | --- |\n"
        "| a | CPU: X, 2 cores | 0.600 ± 0.046 (n = 5) | 123,456 |\n"
        "\n"
        "- `a`: `make a` (CPU: X, 2 cores; jax 0.10.2; commit ba9876543210; 2026-01-02)\n"
        "- Not measured: `b`.\n"
    )


def test_accelerators_have_rows_of_their_own():
    figures = [FIGURE, _figure(value=0.7, device="TPU v5 lite x 4")]
    lines = tables.render(TABLE, figures).splitlines()
    assert lines[2] == "| a | CPU: X, 2 cores | 0.512 |"
    assert lines[3] == "| a | TPU v5 lite x 4 | 0.700 |"
    assert lines[-1] == "- Not measured: `b`, `package_bytes`."


def test_a_gap_among_figures_is_told_in_its_cell():
    figures = [FIGURE, _figure(case="b", metric="package_bytes", value=7)]
    lines = tables.render(TABLE, figures).splitlines()
    assert lines[2] == "| a | CPU: X, 2 cores | 0.512 | not measured |"
    assert lines[3] == "| b | CPU: X, 2 cores | not measured | 7 |"


def test_a_table_without_any_figure_names_its_cases_alone():
    assert tables.render(TABLE, []) == "- Not measured: `a`, `b`.\n"


def test_the_summary_leaves_out_what_was_not_measured():
    beside = {"all real ones": "hm_all", "chance": "hm_chance"}
    rows = [summary.Row(case, f"Job {case}", "HM", "hm", beside) for case in ("a", "b")]
    figures = [FIGURE, _figure(value=0.6, std=0.0456, n=5), _figure(metric="hm_all", value=0.7)]
    figures += [_figure(value=0.9, device="TPU v9"), _figure(case="b", device="TPU v9")]
    assert summary.render(rows, figures) == (
        "| what | figure | gxdistill | beside it |\n"
        "| --- | --- | --- | --- |\n"
        "| Job a | HM | 0.600 ± 0.046 (n = 5) | all real ones 0.700 |\n"
    )


def test_the_summary_shows_recorded_figures_alone():
    metrics = {(figure.case, figure.metric) for figure in read()}
    shown = {(row.case, m) for row in summary.ROWS for m in (row.metric, *row.beside.values())}
    assert shown <= metrics


def test_only_what_stands_between_the_markers_is_rewritten():
    before, after = "# Title\n\n<!-- table:main_job -->\n", "<!-- /table -->\n\nThe end.\n"
    text = tables.rewrite(f"{before}old\n{after}", [])
    assert text.startswith(before)
    assert text.endswith(after)
    assert "old" not in text
    assert text.count("`radiograph_known_cohort`") == 1
    assert tables.rewrite(text, []) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<!-- table:unheard_of -->\n<!-- /table -->", "no table is called 'unheard_of'; known: m"),
        ("<!-- table:main_job -->\n", "table 'main_job' has no end"),
        (
            "<!-- table:main_job -->\n<!-- table:main_job -->\n<!-- /table -->",
            "table 'main_job' has no end",
        ),
    ],
)
def test_a_broken_marker_is_refused(text, reason):
    with pytest.raises(UserError, match=reason):
        tables.rewrite(text, [])


def test_a_stale_page_fails_the_check_and_is_mended_by_the_command(tmp_path, monkeypatch, capsys):
    page, results = tmp_path / "README.md", tmp_path / "results"
    page.write_text("<!-- table:main_job -->\n<!-- /table -->\n")
    results.mkdir()
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.setattr(tables, "RESULTS", results)
    assert tables.main([]) == 0
    assert tables.main(["--check"]) == 0

    figure = dataclasses.asdict(_figure(case="demo"))
    (results / "demo.jsonl").write_text(json.dumps(figure) + "\n")
    assert tables.main(["--check"]) == 1
    assert "README.md is stale; run: python -m benchmarks.tables" in capsys.readouterr().out
    assert tables.main([]) == 0
    assert "| demo | CPU: X, 2 cores | 0.512 |" in page.read_text()
    assert tables.main(["--check"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "results"]

    (results / "demo.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match=r"benchmarks.tables: .*demo.jsonl:1: no figure"):
        tables.main(["--check"])
