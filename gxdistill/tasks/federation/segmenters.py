"""The segmenter that a site has at the end of a federation, as its package says it."""

from gxdistill.jobs import segmenter_manifest
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
    federation = job.config.federation
    return segmenter_manifest.manifest_of(
        job,
        federation,
        privacy=f"Trained together with other sites. {promise.words}",
        normalisation=hospitals.normalisation(job.cohorts.geometry.channels),
        class_names=data.classes,
        overlap=min(federation.overlap, job.config.patch.size - 1),
        flips=False,
    )
