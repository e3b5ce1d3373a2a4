import csv

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks import burned_in


def test_images_with_text_are_counted_by_site(tmp_path):
    (tmp_path / "images").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "site"), ("a", "X"), ("b", "X"), ("c", "Y")])
    for name in "abc":
        page = Image.fromarray(np.full((200, 200), 60, np.uint8))
        if name == "b":
            font = ImageFont.load_default(20)
            ImageDraw.Draw(page).text((5, 5), "PA ERECT", fill=250, font=font)
        page.save(tmp_path / f"images/{name}.jpg", quality=90)
    assert burned_in.measure(tmp_path) == {"x": [False, True], "y": [False]}
