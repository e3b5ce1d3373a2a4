from pathlib import Path

import pytest

from gxdistill.errors import UserError
from gxdistill.jobs import checks
from gxdistill.tasks.segmentation import settings
from tests import segmenters


def _config(**changes):
    return segmenters.make_job("unused", **changes).config


def test_the_default_config_has_all_settings_and_needs_the_classes():
    config = settings.default_config()
    with pytest.raises(UserError, match=r"data.mask_classes is \(\); name the classes"):
        settings.check(config)
    config.data.mask_classes = ("background", "nucleus")
    settings.check(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network__name": "convnet"}, "network.name is 'convnet'; it must be 'unet'"),
        ({"data__normalise": "organ"}, "data.normalise is 'organ', by the mask that is to be"),
        ({"data__kind": "prepared"}, "data.kind is 'prepared'"),
        ({"data__mask_classes": ("one",)}, "at least two, or none"),
        ({"data__mask_classes": ("a", "a")}, "names that differ"),
        ({"segment__steps": 7, "segment__steps_per_call": 2}, "segment.steps is 7, not a multiple"),
        ({"segment__augment": ("blur",)}, "segment.augment is .*names among 'dihedral'"),
        ({"segment__dice_over": "pixel"}, "'image' or 'batch'"),
        ({"segment__lr": 0.0}, "segment.lr is 0.0"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        _config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment__overlap": 16}, "segment.overlap is 16, not below patch.size, 16"),
        ({"segment__augment": ("stain",)}, "segment.augment has 'stain', and grey images"),
    ],
)
def test_a_setting_that_does_not_fit_the_images_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        checks.check_problem(_config(**changes), (16, 16, 1), 2)


def test_the_page_of_the_docs_is_fresh():
    page = Path(__file__).parents[3] / "docs/segmentation_settings.md"
    command = "python -m gxdistill.tasks.segmentation.settings > docs/segmentation_settings.md"
    assert page.read_text("utf-8") == settings.as_page(), f"stale; run: {command}"
    assert command in settings.as_page().replace("\n", " ")
