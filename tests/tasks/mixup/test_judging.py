"""Verdicts on attacks whose figures are known, in the shape of an audit."""

import pytest

from gxdistill.package.mixup_file import CLIENT, MixupManifest
from gxdistill.tasks.mixup import judging
from gxdistill.tasks.mixup.attacking import KNOWN, LIKENESS, NETWORK

_MANIFEST = MixupManifest(
    kind=CLIENT,
    name="tiny",
    privacy="none",
    network="unet",
    options={},
    shape=(16, 16, 1),
    class_names=("a", "b"),
    server="0" * 64,
    law=(0.3, 0.5),
)


def _attack(value, low, ms_ssim):
    share = {"value": value, "low": low, "high": 1.0}
    return {"precision_at_1": share, "ms_ssim": ms_ssim}


@pytest.mark.parametrize(("low", "leaks"), [(0.05, False), (0.2, True)])
def test_a_leak_is_what_is_found_more_often_than_by_chance(low, leaks):
    attacks = {
        LIKENESS: _attack(0.1, 0.02, 0.3),
        NETWORK: _attack(0.25, low, 0.5),
        KNOWN: _attack(0.05, 0.01, 0.4),
    }
    outcome = {"attacks": attacks, "ms_ssim_of_mean_patient": 0.45, "exposure": 0.7}
    audit = judging.audit(_MANIFEST, "0" * 64, outcome, patients=10)
    verdict = audit["verdicts"]["singling_out"]
    assert verdict["leaks"] is leaks
    assert f"finds 25.0% ({low:.1%} to 100.0%) of 10 patients" in verdict["words"]
    assert f"by {NETWORK}; one that knows them finds 5.0%" in verdict["words"]
    assert "chance is 10.0%" in verdict["words"]
    assert f"by {NETWORK}, has an MS-SSIM of 0.50" in verdict["words"]
    assert {name: part["leaks"] for name, part in audit["verdicts"].items()} == {
        "singling_out": leaks,
        "linkability": None,
        "inference": None,
    }
    assert audit["tests"].keys() == audit["verdicts"].keys()
    assert (audit["proven"], audit["guarantee"]) == (None, "no formal guarantee")
