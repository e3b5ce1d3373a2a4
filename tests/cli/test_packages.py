"""The commands on packages."""

import re
import shutil

from gxdistill import package
from gxdistill.cli import main
from tests import keys
from tests.commands import refusal
from tests.packages import LEDGER, change, make


def test_a_package_is_inspected_and_verified(run, capsys):
    main.main(["inspect", str(run / "package.gxd")])
    assert "demo_smoke" in capsys.readouterr().out
    main.main(["verify", str(run / "package.gxd")])
    said = capsys.readouterr().out
    assert said.startswith(
        f"{run / 'package.gxd'}: whole: no part was damaged on its way. It is not"
    )
    assert "unchanged" not in said  # Of what nobody signed, nobody can say so.
    assert "\ntraining 1 network(s): an estimated " in said
    assert "REFUSED" not in said
    assert "\nguarantee: no formal guarantee\n" in said
    for arguments in (["verify"], ["verify", "a", "b"], ["diff", "a"]):
        assert "name just PACKAGE" in refusal(*arguments)
    assert "unknown flag --package; gxdistill inspect has none" in refusal("inspect", "--package")
    assert "--key: expected one argument" in refusal("verify", "a", "--key")
    assert "--key: a value is missing" in refusal("verify", "a", "--key=")


def test_a_ledger_is_composed_anew_and_one_that_claims_less_is_refused(tmp_path, capsys):
    """300 steps at q = .2 with noise 1.81 cost 7.986 at delta 1e-3."""
    for claimed, name in ((7.9961, "honest"), (3.0, "liar")):
        ledger = package.from_json(package.LedgerRecord, {**LEDGER, "epsilon": claimed})
        package.save(tmp_path / f"{name}.gxd", change(make(), ledger=ledger))
    main.main(["verify", str(tmp_path / "honest.gxd")])
    assert re.search(
        r"guarantee: epsilon 8 at .*; its events come to that\n", capsys.readouterr().out
    )
    said = refusal("verify", str(tmp_path / "liar.gxd"))
    assert re.search(r"liar.gxd claims epsilon 3, and its ledger comes to 7\.98", said)


def test_packages_are_signed_compared_and_exported(run, tmp_path, capsys):
    sent = str(shutil.copy(run / "package.gxd", tmp_path / "p.gxd"))
    private, public = keys.write_pair(tmp_path)
    assert "is not signed" in refusal("verify", sent, f"--key={public}")
    assert "--key is missing" in refusal("sign", sent)
    main.main(["sign", sent, f"--key={private}"])
    signed = capsys.readouterr().out.removeprefix(f"{sent}: ")
    main.main(["verify", sent, f"--key={public}"])
    said = capsys.readouterr().out
    assert said.startswith(f"{sent}: whole, and unchanged since it was {signed.strip()}\n")
    main.main(["verify", sent])
    assert f"{sent}: whole. It is signed, but by whom was not checked" in capsys.readouterr().out
    main.main(["diff", sent, str(run / "package.gxd")])
    assert "settings that differ\n  none\n" in capsys.readouterr().out
    for to in ("npz", "safetensors", "png", "pytorch-folder"):
        main.main(["export", sent, f"--to={to}"])
        assert capsys.readouterr().out == f"{tmp_path}/p.{to}\n"
        assert (tmp_path / f"p.{to}").exists()
    assert "exists already" in refusal("export", sent, "--to=npz")
    assert "--to is missing. Choose one of npz" in refusal("export", sent)
    assert "is no package of schema version 1" in refusal("migrate", str(tmp_path))
