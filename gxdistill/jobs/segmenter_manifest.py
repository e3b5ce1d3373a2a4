"""What a job's segmenter is, as its package says it."""

import dataclasses
import json

import ml_collections

from gxdistill import package
from gxdistill.data import source
from gxdistill.data.batches.resident import Normalisation
from gxdistill.jobs import summary
from gxdistill.jobs.job import Job
from gxdistill.package.segmenter import SegmenterManifest

PACKAGE = "segmenter.gxs"  # In the working folder.


def manifest_of(
    job: Job,
    training: ml_collections.ConfigDict,
    *,
    privacy: str,
    normalisation: Normalisation,
    class_names: tuple[str, ...],
    overlap: int,
    flips: bool,
) -> SegmenterManifest:
    """Says what a job's segmenter is, and of which of its patients.

    Args:
      job: whose cohort.
      training: the section of the config that it was trained by.
      privacy: what its weights may tell of patients, in words.
      normalisation: of its input.
      class_names: that it tells apart.
      overlap: pixels that neighbouring tiles share.
      flips: whether it is to see each tile mirrored, too.
    """
    config, cohorts = job.config, job.cohorts
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
        privacy=privacy,
        cohort=summary.cohort_counts(source.summary(cohorts.source)),
        network=package.NetworkChoice(config.network.name, config.network.options.to_dict()),
        init=package.Init("random", None),
        patch=geometry,
        reading=summary.reading_of(job),
        image_normalisation=cohorts.source.recipe.normalise,
        normalisation=normalisation,
        class_names=class_names,
        decision=None,
        likeness=None,
        results={},
        proof=None,
        ledger=None,
        flips=flips,
        training=json.loads(training.to_json_best_effort()),
    )
