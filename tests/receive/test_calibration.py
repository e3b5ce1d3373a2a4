import dataclasses
import json

import pytest

from gxdistill.errors import UserError
from gxdistill.receive import calibration
from gxdistill.receive.calibration import Calibration

WHOLE = Calibration(0.4, 0.3, 0.55, 40, 2, "prevalence", 0.25, "0" * 64)


def test_a_calibration_comes_back_as_it_was(tmp_path):
    for whole in (WHOLE, dataclasses.replace(WHOLE, by="labels", share=None)):
        calibration.save(tmp_path / "c.json", whole)
        assert calibration.load(tmp_path / "c.json", WHOLE.package) == whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("tau", value) for value in (None, "0.4", True, -3, 1e300, [0.4])),
        *(("images", value) for value in (0, 1.5, 2**40, True)),
        *(("by", value) for value in ("taste", None, ["labels"])),
        *(("share", value) for value in (-0.1, 1.1, "x")),
        *(("package", value) for value in (3, "0", "0" * 65)),
        ("undecidable", -1),
        ("another", 1),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_by_its_field(tmp_path, field, value):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**dataclasses.asdict(WHOLE), field: value}))
    with pytest.raises(UserError, match=f"no calibration: its field '{field}' is unfit"):
        calibration.load(path, WHOLE.package)


def test_what_is_missing_large_or_of_another_package_is_refused(tmp_path):
    path = tmp_path / "c.json"
    table = dataclasses.asdict(WHOLE)
    path.write_text(json.dumps({name: table[name] for name in table if name != "low"}))
    with pytest.raises(UserError, match="its field 'low'"):
        calibration.load(path, WHOLE.package)
    path.write_text(json.dumps({**table, "note": "x" * (1 << 16)}))
    with pytest.raises(UserError, match=r"c\.json"):
        calibration.load(path, WHOLE.package)
    calibration.save(path, WHOLE)
    with pytest.raises(UserError, match="set with another package"):
        calibration.load(path, "1" * 64)
