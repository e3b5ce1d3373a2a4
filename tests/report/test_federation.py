"""The page of a federation: each epsilon stands beside its unit, and names are escaped."""

import pytest

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.report import federation


def _row(title, dice, unit=None, epsilon=None, promise="Nothing is promised."):
    return {
        "title": title,
        "dice": dice,
        "jaccard": dice / 2,
        "accuracy": dice,
        "patients": 5,
        "dice_by_site": {"<north>": dice, "south": dice},
        "unit": unit,
        "epsilon": epsilon,
        "delta": 0.01 if unit else None,
        "promise": promise,
        "bytes_a_round": 120_000,
    }


def test_the_page_tells_what_was_measured(tmp_path):
    site = {"train_images": 3, "train_patients": 3, "test_images": 2}
    rows = {
        "alone/0": _row("<north> alone", 0.5),
        "central": _row("Central", 0.8),
        "federated": _row("Federation", 0.79),
        "site": _row("Noise on sites", 0.3, "site", 40.61, "What hides is the site."),
        "patient": _row("Noise on sums", 0.6, "patient", None, "What hides is one patient."),
    }
    told = {"sites": {"<north>": site, "south": site}, "contenders": rows}
    storage.write_json(tmp_path / "federation.json", told)
    page = federation.write(tmp_path).read_text()
    assert "2 sites segment together with a Dice of 0.790" in page
    assert "All patients in one place give 0.800; a site alone 0.500 to 0.500" in page
    for part in ("40.7", "above 100", "What hides is the site.", "120 kB", "&lt;north&gt; alone"):
        assert part in page
    assert "<north>" not in page
    assert "<script" not in page


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="Run `gxdistill federate simulate` first"):
        federation.write(tmp_path)
