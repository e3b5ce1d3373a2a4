import numpy as np
import pytest

from gxdistill.data import intensities
from gxdistill.errors import UserError
from gxdistill.jobs import kinds
from gxdistill.tasks.cohort import preparing
from tests import small_jobs


def test_images_that_come_from_no_file_are_normalised_too(tmp_path):
    plain, organ = (
        small_jobs.make(tmp_path / way, data__normalise=way).cohorts.source
        for way in ("cohort", "organ")
    )
    assert (plain.recipe.normalise, organ.recipe.normalise) == ("cohort", "organ")
    first, mask = plain.cohort.images[0, :, :, 0], plain.cohort.masks[0]
    np.testing.assert_array_equal(
        organ.cohort.images[0, :, :, 0], intensities.normalise(first, mask, "organ")
    )

    def spread(cohort):
        pairs = zip(cohort.images, cohort.masks, strict=True)
        return np.ptp([image[mask].mean() for image, mask in pairs])

    assert spread(organ.cohort) < 1.5
    assert spread(plain.cohort) > 3


def test_images_without_masks_cannot_be_normalised_by_their_organ(tmp_path):
    small_jobs.write_cohort(tmp_path, masks=False)
    job = small_jobs.make(
        tmp_path / "run", data__kind="manifest", data__path=str(tmp_path), data__normalise="organ"
    )
    with pytest.raises(UserError, match="mask missing: its grey values are normalised by the"):
        kinds.load(job.config, print)


@pytest.mark.slow
def test_a_prepared_set_keeps_how_its_images_were_normalised(tmp_path):
    small_jobs.write_cohort(tmp_path / "files")
    common = {"data__kind": "manifest", "data__path": str(tmp_path / "files")}
    job = small_jobs.make(tmp_path / "run", data__normalise="image_histogram", **common)
    direct = job.cohorts.source.cohort.images
    place = preparing.prepare(job)
    read = small_jobs.make(tmp_path / "own", data__kind="prepared", data__path=str(place))
    assert read.cohorts.source.recipe.normalise == "image_histogram"
    ours = {image.tobytes() for image in np.asarray(read.cohorts.source.cohort.images)}
    assert ours == {image.tobytes() for image in direct}
    read.config.data.normalise = "organ"
    with pytest.raises(UserError, match="was prepared with 'image_histogram'"):
        kinds.load(read.config, print)
