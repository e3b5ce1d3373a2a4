"""The settings that every task shares: the run, its images and patches, network and measures."""

from gxdistill.jobs.settings import (
    Table,
    choice,
    integer,
    items,
    mapping,
    names_in,
    number,
    switch,
    text,
)

COUNT = (1, 10**6)
SHARE = (0.0, 1.0)
RATE = (1e-9, 1e9)

_LEAKS = names_in("gxdistill.data.leaks", "RULES")


def _is_size(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(side) is int and side > 0 for side in value)
    )


def _are_labels(value: object) -> bool:
    return isinstance(value, tuple) and len({*value, "irrelevant"}) > len(value)


def _are_classes(value: object) -> bool:
    return isinstance(value, tuple) and len(value) != 1 and len(set(value)) == len(value) < 256


_RUN = {
    "name": text("unnamed", "text that may name a folder", "Name of the run and of its folder."),
    "seed": integer(0, 0, 2**32 - 1, "Seed of everything that is drawn at random."),
    "log": choice(
        "none",
        ("none", "tensorboard"),
        "Where, beside history.jsonl, losses and measures are written: as events for TensorBoard.",
    ),
    "about.purpose": text(
        "Research on data set distillation.", "text", "What the package may be used for."
    ),
    "about.licence": text(
        "Not stated: ask the sender.", "text", "Under what terms the package is sent."
    ),
}
_DATA = {
    "data.kind": choice(
        "manifest",
        names_in("gxdistill.jobs.kinds", "KINDS"),
        "Files of a manifest, a set by `gxdistill prepare`, drawn images, or a public set.",
    ),
    "data.path": text(".", "a folder", "Folder of the data set."),
    "data.manifest": text(
        "manifest.csv",
        "a file in the folder data.path",
        "File that lists images, masks, labels and patients.",
    ),
    "data.files": text(
        "",
        "a folder, or nothing for the manifest's",
        "Folder that the files of the manifest lie in; absolute names must lie below it.",
    ),
    "data.columns": mapping(
        "a field with a column, or with a template as images/{id}.jpg",
        "Fields that the manifest calls otherwise.",
    ),
    "data.splits": mapping(
        "a value of the split column with train, test or skip",
        "What the manifest's splits mean, where they are called otherwise.",
        choices=("train", "test", "skip"),
    ),
    "data.label_names": items(
        ("non-gastritis", "gastritis"),
        "names that differ from each other and from 'irrelevant'",
        "Names of the labels 0, 1 and so on; none where images have no label.",
        fits=_are_labels,
    ),
    "data.mask_classes": items(
        (),
        "names that differ from each other, at least two, or none",
        "Names of the classes of a mask's pixels, the background first; none for an organ's mask.",
        fits=_are_classes,
    ),
    "data.segmenter": text(
        "",
        "a file, or nothing",
        "Package of a trained segmenter, which makes the organ masks of images that have none.",
    ),
    "data.colour": switch(False, "Whether images are read as red, green and blue, not as grey."),
    "data.image_size": items(
        None,
        "height and width in pixels",
        "Size of all images before they are shrunk; None takes the most common one.",
        fits=_is_size,
        optional=True,
    ),
    "data.downscale": integer(1, *COUNT, "Side of the blocks of pixels that are averaged."),
    "data.spacing": number(
        None,
        1e-3,
        1e2,
        "Millimetres a pixel, to which images are resampled; None leaves them as they are.",
        optional=True,
    ),
    "data.fit": choice(
        "same",
        names_in("gxdistill.data.files.reading", "FITS"),
        "Whether an image of another size is refused, or a smaller one put amid black.",
    ),
    "data.window": choice(
        "file",
        names_in("gxdistill.data.files.reading", "WINDOWS"),
        "How more than 8 bits become 8: as a DICOM file says, or by percentiles.",
    ),
    "data.normalise": choice(
        "cohort",
        names_in("gxdistill.data.intensities", "WAYS"),
        "What normalises the grey values: the cohort, the image or its organ.",
    ),
    "data.levels": choice(
        "measured",
        ("measured", "fixed"),
        "Mean and deviation of the input: of the training pixels, or 0.5 and 0.25 for any cohort.",
    ),
    "data.burned_in": choice(
        "mask",
        names_in("gxdistill.data.files.reading", "TEXTS"),
        "What is done with text in the border of an image.",
    ),
    "data.organ": items(
        (),
        "labels of a label map, or names of polygons",
        "Parts of a mask that are the organ; none stands for all of it.",
    ),
    "data.test_share": number(
        0.25, *SHARE, "Share of patients that is for testing, where the manifest has no split."
    ),
    "data.external": text(
        "",
        "a site of the cohort",
        "Site that nothing is learned from, and which is measured apart.",
    ),
    "data.max_bad_share": number(
        0.05, *SHARE, "Share of images in quarantine above which the job stops."
    ),
    "data.limit": integer(
        None, *COUNT, "Number of entries that are read at most; None reads all.", optional=True
    ),
    "data.patients": integer(200, 4, 10**6, "Number of patients, where images are drawn."),
    "data.size": integer(256, 16, 2**13, "Side of an image in pixels, where images are drawn."),
    "data.train_share": number(
        0.5, *SHARE, "Share of patients that is trained on, where images are drawn."
    ),
    "data.leaks.duplicate": choice(
        "warn", _LEAKS, "What `gxdistill prepare` does where both splits have nearly equal images."
    ),
    "data.leaks.site": choice(
        "allow", _LEAKS, "What `gxdistill prepare` does where both splits have a site."
    ),
    "data.feed": choice(
        "auto",
        ("auto", "resident", "streaming"),
        "Whether training images stay on the device or are read as needed; auto goes by size.",
    ),
    "data.resident_mb": integer(
        2048,
        *COUNT,
        "MiB of images up to which auto is resident on a CPU; elsewhere half the memory.",
    ),
    "data.cache_mb": integer(32, *COUNT, "MiB of images that are kept in memory while streaming."),
}
_PATCHES = {
    "sampling.classes": items(
        (),
        "a weight for each class, or none",
        "How often each class is drawn; none draws all classes alike.",
    ),
    "sampling.sites": mapping(
        "a site with its weight, for each site or none",
        "How often each site is drawn; none leaves it to its patients.",
    ),
    "sampling.patients": choice(
        "equal",
        names_in("gxdistill.data.batches.sampling", "PATIENTS"),
        "Whether, within class and site, all patients are drawn alike, or all patches.",
    ),
    "patch.size": integer(299, *COUNT, "Side of a patch in pixels."),
    "patch.stride": integer(50, *COUNT, "Pixels between the corners of neighbouring patches."),
    "patch.border": switch(False, "Whether patches cover the far edges of an image, too."),
    "patch.irrelevant_below": number(
        0.01, *SHARE, "Largest share of the organ in an irrelevant patch."
    ),
    "patch.inside_above": number(
        0.85, *SHARE, "Smallest share of the organ in a patch that inherits its image's label."
    ),
}
_NETWORK = {
    "network.name": choice(
        "convnet", names_in("gxdistill.models.zoo", "NAMES"), "Kind of network that is trained."
    ),
    "network.options": mapping(
        "an option of the network with its value, as width or dtype",
        "Settings of the network that differ from its defaults.",
    ),
}
_MEASURES = {
    "decision.rule": choice(
        "counts",
        names_in("gxdistill.evaluation.decision", "RULES"),
        "How an image is decided: by classes of its patches, their probabilities, or by zones.",
    ),
    "evaluate.networks": integer(5, *COUNT, "Fresh networks that a package is judged by."),
    "evaluate.threshold_images": integer(
        200, *COUNT, "Training images that the threshold and weights of a decision are chosen on."
    ),
    "evaluate.baselines": choice(
        "all",
        ("all", "ceiling", "none"),
        "What a package is compared with: all baselines, just all real patches, or nothing.",
    ),
    "evaluate.baseline_networks": integer(3, *COUNT, "Fresh networks of each baseline."),
    "evaluate.ceiling.networks": integer(
        2, *COUNT, "Networks of the ceiling: trained on all real patches."
    ),
    "evaluate.ceiling.steps": integer(
        1500, 1, 10**7, "Steps of training of the ceiling's networks."
    ),
    "evaluate.ceiling.batch": integer(
        256, *COUNT, "Real patches of one step of the ceiling's networks."
    ),
    "evaluate.ceiling.lr": number(0.001, *RATE, "First learning rate of the ceiling's networks."),
}
SHARED = Table(
    {**_RUN, **_DATA, **_PATCHES, **_NETWORK, **_MEASURES},
    {
        "about": "What the package's data card says.",
        "data": "Which images are read, and how.",
        "sampling": "How real patches are drawn for a batch.",
        "patch": "How images are cut, and which class a patch is of.",
        "network": "What is trained.",
        "decision": "How whole images are decided from their patches.",
        "evaluate": "How a result is measured.",
    },
)
