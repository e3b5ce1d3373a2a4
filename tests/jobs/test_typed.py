import pytest

from gxdistill.cli import config
from gxdistill.errors import UserError
from gxdistill.tasks.distillation import settings


@pytest.mark.parametrize(
    ("flag", "name", "value"),
    [
        ("data.image_size=None", "data.image_size", None),
        ("data.image_size=256,320", "data.image_size", (256, 320)),
        ("data.image_size=(256, 320)", "data.image_size", (256, 320)),
        ("data.limit=None", "data.limit", None),
        ("data.label_names=a, b", "data.label_names", ("a", "b")),
        ("data.label_names=0,1", "data.label_names", ("0", "1")),
        ("data.label_names=('a','b')", "data.label_names", ("a", "b")),
        ("data.organ=1,lung", "data.organ", (1, "lung")),
        ("data.columns.patient=image", "data.columns", {"patient": "image"}),
        ("data.columns=image=a,mask={id}.png", "data.columns", {"image": "a", "mask": "{id}.png"}),
        ("data.columns={}", "data.columns", {}),
        ("data.columns=None", "data.columns", {}),
        ("data.splits.val=skip", "data.splits", {"val": "skip"}),
        ("sampling.classes=1,2.5", "sampling.classes", (1, 2.5)),
    ],
)
def test_settings_are_read_as_people_write_them(flag, name, value):
    changed = config.read("gastric", [f"--config.{flag}"])
    settings.check(changed)
    for part in name.split("."):
        changed = changed[part]
    assert (changed.to_dict() if isinstance(value, dict) else changed) == value


def test_a_key_is_added_to_those_of_the_config():
    columns = config.read("radiograph", ["--config.data.columns.patient=id"]).data.columns
    assert columns.to_dict() == {
        "image": "images/{id}.jpg",
        "mask": "masks/{id}.png",
        "patient": "id",
    }


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("data.columns=foo", "write KEY=VALUE,KEY=VALUE"),
        ("data.splits.val=dev", "data.splits is .* with train, test or skip"),
        ("data.image_size=3", "height and width in pixels, or None"),
        ("data.colums.patient=id", "unknown setting --config.data.colums.patient"),
    ],
)
def test_what_cannot_be_meant_is_refused(flag, reason):
    with pytest.raises(UserError, match=f"(?s){reason}"):
        settings.check(config.read("gastric", [f"--config.{flag}"]))
