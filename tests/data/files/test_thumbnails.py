import numpy as np
from PIL import Image

from gxdistill.data.files.thumbnails import thumbnail


def test_what_can_be_decoded_is_drawn_in_its_colours_and_shape(tmp_path):
    Image.new("RGB", (400, 200), (200, 30, 30)).save(tmp_path / "red.png")
    picture = thumbnail(tmp_path / "red.png", 100)
    assert picture.size == (100, 50)
    assert np.asarray(picture)[25, 50].tolist() == [200, 30, 30]
    Image.new("L", (10, 20), 7).save(tmp_path / "small.png")
    assert thumbnail(tmp_path / "small.png", 100).size == (10, 20)


def test_what_cannot_is_none(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.dcm").write_bytes(b"")
    for name in ("text.png", "empty.dcm", "nowhere.png"):
        assert thumbnail(tmp_path / name, 100) is None
