import re

import pytest

from benchmarks import private_step
from tests import toy

TINY = {"steps": 1, "epochs": 1, "images": 1, "patients": 2, "patches": 1, "image_size": 12}


@pytest.mark.slow
def test_both_steps_are_timed_on_as_many_images():
    with toy.quick_compilation():
        compiled = private_step.programs(private_step.Setting(**TINY))
    shapes = {name: arguments[1].images.shape for name, (_, arguments) in compiled.items()}
    assert shapes == {"plain": (2, 12, 12, 1), "private": (2, 1, 12, 12, 1)}
    figures = private_step.measure(2, compiled)
    ratio = figures["private_cpu_s"] / figures["plain_cpu_s"]
    assert figures["cpu_ratio"] == pytest.approx(ratio, rel=0.2)


def test_a_case_names_what_is_not_as_usual():
    assert private_step.Setting().case == "private_step"
    case = private_step.Setting(patients=4, place="distilled").case
    assert case == "private_step_patients4_placedistilled"
    assert re.fullmatch("[a-z0-9_]+", case)
