import json
import shutil

import pytest

from gxdistill.cli import main
from tests.commands import refusal
from tests.small_jobs import ROOT

CONFIG = f"--config={ROOT}/configs/demo.py:smoke"


def test_a_package_is_audited_and_the_verdicts_are_printed(run, tmp_path, capsys):
    package = shutil.copy(run / "package.gxd", tmp_path / "sent.gxd")
    flags = [f"--workdir={tmp_path}", "--shadows=4", "--canaries=0", "--no-pictures"]
    main.main(["audit", str(package), CONFIG, *flags])
    told = capsys.readouterr()
    result = json.loads((tmp_path / "audit.json").read_text())
    for name, verdict in result["verdicts"].items():
        assert f"{name.replace('_', ' ')}: {verdict['words']}" in told.out
    assert "no formal guarantee" in told.out
    assert "shadow cohorts: 4/4" in told.err
    assert "s left" in told.err
    assert result["tests"]["singling_out"]["canaries"] is None
    assert any("Canaries" in line for line in result["not_tested"])
    assert "shows patients" not in told.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["audit", "PACKAGE"], "--config is missing"),
        (["audit", CONFIG], "name just PACKAGE"),
        (["audit", "PACKAGE", CONFIG, "--shadows=3"], "'3' is not a whole number from 4"),
        (["audit", "nowhere.gxd", CONFIG], "nowhere.gxd"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_a_line(run, tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    words = [str(run / "package.gxd") if word == "PACKAGE" else word for word in words]
    assert reason in refusal(*words)
    assert not list(tmp_path.rglob("audit*"))
