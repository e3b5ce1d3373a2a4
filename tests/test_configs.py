"""Every config builds; every smoke variant runs from end to end."""

import importlib
import inspect
import json
import re

import pytest

from gxdistill import package
from gxdistill.cli import main
from gxdistill.jobs.checks import check
from gxdistill.tasks.distillation import settings as distillation
from gxdistill.tasks.federation import settings as federation
from gxdistill.tasks.federation import sharing
from gxdistill.tasks.mixup import settings as mixup
from gxdistill.tasks.segmentation import settings as segmentation
from tests import small_jobs

CONFIGS = sorted(path.stem for path in (small_jobs.ROOT / "configs").glob("*.py"))
TABLES = dict.fromkeys(CONFIGS, distillation.TABLE) | {
    "federation": federation.TABLE,
    "mixup": mixup.TABLE,
    "segmentation": segmentation.TABLE,
    "sharing": distillation.TABLE | sharing.SETTINGS,
}
APART = {"demo", "federation", "mixup", "segmentation", "sharing"}  # Their own tests run them.
REAL = {"mnist", "radiograph"}  # They need the public data sets.


def _variants(name):
    """The variants, by the refusal of another one."""
    with pytest.raises(ValueError, match="unknown variant 'strange'") as refusal:
        importlib.import_module(f"configs.{name}").get_config("strange")
    return re.findall(r"'(\w+)'", str(refusal.value))[1:]


def test_the_configs_are_those_of_the_issue():
    known = ["demo", "federation", "gastric", "mixup", "mnist", "radiograph", "segmentation"]
    assert [*known, "sharing"] == CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variant_builds_and_is_told_apart_by_its_name(name):
    module = importlib.import_module(f"configs.{name}")
    variants = _variants(name)
    assert "smoke" in variants
    assert inspect.signature(module.get_config).parameters["variant"].default == variants[0]
    configs = [module.get_config(variant) for variant in variants]
    assert len({config.name for config in configs}) == len(variants)
    for config in configs:
        if name != "mixup":  # Which has few of the settings that the others share.
            check(config)
        check(config, TABLES[name])
        assert re.fullmatch(r"[a-z0-9_]+", config.name)  # It names a file of results.
        assert config.is_locked
        for setting in ("outer_steps", "checkpoint_every", "evaluate_every"):
            if "distill" in config:
                assert config.distill[setting] % config.distill.steps_per_call == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_the_commands_in_a_config_name_itself_and_its_variants(name):
    text = importlib.import_module(f"configs.{name}").__doc__
    named = re.findall(r"--config=configs/(\w+)\.py(?::(\w+))?", text)
    assert named
    for config, variant in named:
        assert config == name
        assert variant in ("", *_variants(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in APART])
def test_the_smoke_variant_runs_from_end_to_end(name, tmp_path, request, capsys):
    flags = [f"--config={small_jobs.ROOT}/configs/{name}.py:smoke", f"--workdir={tmp_path}"]
    if name in REAL:
        root = request.getfixturevalue("data_root")
        flags.append(f"--config.data.path={root / 'mnist' if name == 'mnist' else root}")
    for command in ("distill", "train", "evaluate", "report"):
        main.main([command, *flags])
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    manifest = package.load(tmp_path / "package.gxd").manifest
    known, decided = manifest.init.is_packaged, manifest.decision
    assert len(evaluation["contenders"]) == 8 + known  # and such a package on other weights
    if name == "mnist":
        assert decided is None  # Ten digits are neither negative nor positive.
    distilled = evaluation["contenders"]["distilled"]
    assert ("at_package_tau" in distilled) == (decided is not None)
    assert "distilled" in capsys.readouterr().out
    assert "</html>" in (tmp_path / "report.html").read_text()
