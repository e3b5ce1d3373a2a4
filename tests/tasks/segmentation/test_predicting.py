import json

import numpy as np
import pytest
from PIL import Image

from gxdistill.errors import UserError
from gxdistill.package.segmenter import load_segmenter
from gxdistill.package.segmenting import probabilities
from gxdistill.tasks.segmentation import predicting


@pytest.fixture
def images(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for i, shape in enumerate([(64, 64), (20, 41), (7, 9)]):
        paths.append(tmp_path / f"image{i}.png")
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(paths[-1])
    return paths


def test_label_maps_have_the_size_of_their_images(run, images, tmp_path):
    path, target = run / "segmenter.gxs", tmp_path / "out"
    rows = predicting.predict(path, images, target, print)
    segmenter = load_segmenter(path)
    for image, row in zip(images, rows, strict=True):
        pixels = np.asarray(Image.open(image))
        expected = probabilities(segmenter, pixels[..., None]).argmax(-1)
        labels = np.asarray(Image.open(target / row["labels"]))
        np.testing.assert_array_equal(labels, expected)
        assert row["shares"]["stomach"] == pytest.approx(expected.mean())
    written = json.loads((target / "shares.json").read_text())
    assert written == {"segmenter": segmenter.sha256, "images": rows}


def test_what_cannot_be_read_is_refused_and_the_others_are_segmented(run, images, tmp_path):
    said = []
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    rows = predicting.predict(
        run / "segmenter.gxs", [broken, images[0]], tmp_path / "out", said.append
    )
    assert "refused" in rows[0]
    assert "labels" in rows[1]
    assert str(broken) in said[0]
    with pytest.raises(UserError, match="No image could be segmented"):
        predicting.predict(run / "segmenter.gxs", [broken], tmp_path / "other", said.append)


def test_two_images_of_one_name_are_refused(run, images, tmp_path):
    with pytest.raises(UserError, match=r"Two images would give the file image0\.png"):
        predicting.predict(run / "segmenter.gxs", [images[0]] * 2, tmp_path / "out", print)
