"""The segmenter that a site has at the end of a federation, as its package says it."""

import dataclasses
import json

from gxdistill import package
from gxdistill.data import source
from gxdistill.jobs import summary
from gxdistill.jobs.job import Job
from gxdistill.package.segmenter import SegmenterManifest
from gxdistill.tasks.federation import hospitals
from gxdistill.tasks.federation.hospitals import Hospitals
from gxdistill.tasks.federation.promises import Promise


def manifest_of(job: Job, data: Hospitals, promise: Promise) -> SegmenterManifest:
    """Says what the segmenter is; its cohort is that of this site, for the others' is not known.

    Args:
      job: of the site.
      data: of the site.
      promise: of the site's updates.
    """
    config, cohorts = job.config, job.cohorts
    overlap = min(config.federation.overlap, config.patch.size - 1)
    geometry = dataclasses.replace(
        cohorts.geometry,
        stride=config.patch.size - overlap,
        border=True,
        irrelevant_below=0,
        inside_above=0,
    )
    return SegmenterManifest(
        name=config.name,
        purpose=config.about.purpose,
        licence=config.about.licence,
        privacy=f"Trained together with other sites. {promise.words}",
        cohort=summary.cohort_counts(source.summary(cohorts.source)),
        network=package.NetworkChoice(config.network.name, config.network.options.to_dict()),
        init=package.Init("random", None),
        patch=geometry,
        reading=summary.reading_of(job),
        image_normalisation=cohorts.source.recipe.normalise,
        normalisation=hospitals.normalisation(geometry.channels),
        class_names=data.classes,
        decision=None,
        likeness=None,
        results={},
        proof=None,
        ledger=None,
        flips=False,
        training=json.loads(config.federation.to_json_best_effort()),
    )
