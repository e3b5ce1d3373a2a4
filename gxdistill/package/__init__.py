"""The portable package: what leaves the hospital. One file; data, never code."""

from gxdistill.package.comparison import diff
from gxdistill.package.content import Package, digest, load, size_bytes
from gxdistill.package.description import (
    WARNING,
    card,
    decision,
    describe,
    describe_weights,
    origin,
)
from gxdistill.package.exporting import FORMATS, export
from gxdistill.package.fields import (
    About,
    CohortCounts,
    Decision,
    Distillation,
    Init,
    LedgerRecord,
    Likeness,
    Manifest,
    NetworkChoice,
    PatchGeometry,
    Proof,
    Reading,
    Releases,
    SplitCounts,
    Splits,
    WeightsManifest,
    from_json,
    to_json,
)
from gxdistill.package.guarantees import guarantee
from gxdistill.package.manifest import SCHEMA_VERSION, schema
from gxdistill.package.merging import merge
from gxdistill.package.precision import PRECISIONS, CodeGrid
from gxdistill.package.saving import convert, save
from gxdistill.package.signing import sign, verify
from gxdistill.package.weights_file import EssentialWeights, is_weights, load_weights, save_weights

__all__ = [
    "FORMATS",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "WARNING",
    "About",
    "CodeGrid",
    "CohortCounts",
    "Decision",
    "Distillation",
    "EssentialWeights",
    "Init",
    "LedgerRecord",
    "Likeness",
    "Manifest",
    "NetworkChoice",
    "Package",
    "PatchGeometry",
    "Proof",
    "Reading",
    "Releases",
    "SplitCounts",
    "Splits",
    "WeightsManifest",
    "card",
    "convert",
    "decision",
    "describe",
    "describe_weights",
    "diff",
    "digest",
    "export",
    "from_json",
    "guarantee",
    "is_weights",
    "load",
    "load_weights",
    "merge",
    "origin",
    "save",
    "save_weights",
    "schema",
    "sign",
    "size_bytes",
    "to_json",
    "verify",
]
