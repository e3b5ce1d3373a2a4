"""Every setting of a job, with the value it has where a config says nothing."""

import ml_collections


def default_config() -> ml_collections.ConfigDict:
    """Makes the config that the files in `configs/` start from; fields are locked."""
    config = ml_collections.ConfigDict()
    config.name = "unnamed"
    config.seed = 0

    config.about = ml_collections.ConfigDict()  # what the package's data card says
    config.about.purpose = "Research on data set distillation."
    config.about.licence = "Not stated: ask the sender."

    config.data = ml_collections.ConfigDict()
    config.data.kind = "manifest"  # or "prepared", "phantom", "mnist"
    config.data.path = "."  # folder of the data set
    config.data.manifest = "manifest.csv"  # in that folder
    config.data.columns = ml_collections.ConfigDict()  # field: another column, or a template
    config.data.label_names = ("non-gastritis", "gastritis")
    config.data.image_size = ml_collections.config_dict.placeholder(
        tuple
    )  # height, width; None: any
    config.data.downscale = 1  # averages blocks of this side
    config.data.spacing = ml_collections.config_dict.placeholder(
        float
    )  # mm a pixel, to which images are resampled; None: as they are
    config.data.fit = "same"  # all images are of one size; or "pad": smaller ones in black
    config.data.window = "file"  # as a DICOM file says; or "percentiles"
    config.data.burned_in = "mask"  # text in the border; or "refuse", "keep"
    config.data.organ = ()  # labels or names that are the organ; none: all of a mask
    config.data.test_share = 0.25  # of the patients, where the manifest has no split
    config.data.max_bad_share = 0.05  # the job stops when more is quarantined
    config.data.limit = ml_collections.config_dict.placeholder(int)  # reads only so many entries
    config.data.patients = 200  # of the phantom
    config.data.size = 256  # side of the phantom's images in pixels
    config.data.train_share = 0.5  # of the phantom's patients
    config.data.leaks = ml_collections.ConfigDict()  # what `prepare` does if both splits have it
    config.data.leaks.duplicate = "warn"  # or "refuse", "allow": images that are nearly equal
    config.data.leaks.site = "allow"
    config.data.feed = "auto"  # or "resident", "streaming": where training images are kept
    config.data.resident_mb = 2048  # most that "auto" keeps on a CPU; of others half their memory
    config.data.cache_mb = 32  # of images in memory while streaming

    config.sampling = ml_collections.ConfigDict()  # of real patches
    config.sampling.classes = ()  # weight of each class; none: all the same
    config.sampling.sites = ml_collections.ConfigDict()  # weight of each site; none: as it comes
    config.sampling.patients = "equal"  # within class and site; or "patches": each of these alike

    config.patch = ml_collections.ConfigDict()
    config.patch.size = 299
    config.patch.stride = 50
    config.patch.border = False  # covers the far edges too
    config.patch.irrelevant_below = 0.01  # largest organ share of an irrelevant patch
    config.patch.inside_above = 0.85  # smallest organ share of a patch inside

    config.network = ml_collections.ConfigDict()
    config.network.name = "convnet"
    config.network.options = ml_collections.ConfigDict()  # the module's own, and `dtype`

    config.distill = ml_collections.ConfigDict()
    config.distill.init = "random"  # initial weights: "known" is one set, "random" any
    config.distill.steps = 10  # S
    config.distill.epochs = 3  # E
    config.distill.replay_epochs = 0  # of the package, where one rate is shared; 0: E
    config.distill.images_per_step = 3  # B; any number, also fewer than classes
    config.distill.label_rule = "raw"  # or "softmax", "clipped"
    config.distill.started_from = "noise"  # or "mixture" of Gaussians; "real", which leaks
    config.distill.started_labels = "classes"  # or "networks", trained on all real patches
    config.distill.inner = "sgd"  # or "momentum", "adam": inner optimiser
    config.distill.momentum = 0.9  # its decay
    config.distill.start_lr = 0.02  # first inner learning rate
    config.distill.start_schedule = "constant"  # or "cosine": of the inner rates at the start
    config.distill.rates = "per_step"  # or "shared", "order_free"; frozen by rates_lr = 0
    config.distill.synthesis = "pixels"  # or "tiles", "bases": what is learned of the images
    config.distill.tile_factor = 2  # how many times a tile is enlarged
    config.distill.bases = 16  # that all images are mixed of
    config.distill.augmentations = ()  # of real and distilled images alike
    config.distill.window = "all"  # differentiated inner steps, or "last", "random", "adaptive"
    config.distill.window_steps = 20  # their number
    config.distill.networks = 1  # initial weights of one outer step
    config.distill.networks_at_once = 0  # on a device, side by side; 0: all, on a CPU one
    config.distill.batch = 256  # real patches of one outer step
    config.distill.memory = "auto"  # or "store", "recompute", "nested": what the gradient keeps
    config.distill.memory_budget_mb = (
        256  # of one network's gradient, for "auto"; 0: by the card's memory
    )
    config.distill.outer_steps = 1000  # 0: the start is packaged as it is
    config.distill.steps_per_call = 10  # outer steps of one dispatch
    config.distill.checkpoint_every = 50
    config.distill.evaluate_every = 100
    config.distill.evaluate_networks = 2  # fresh networks of a periodic evaluation
    config.distill.evaluate_patches = 1200
    config.distill.optimizer = ml_collections.ConfigDict()
    config.distill.optimizer.images_lr = 0.05
    config.distill.optimizer.labels_lr = 0.02
    config.distill.optimizer.rates_lr = 0.02
    config.distill.optimizer.clip = 1.0  # largest norm of a meta-gradient
    config.distill.optimizer.ema_clip = 0.0  # the same in units of its running mean; 0: none
    config.distill.optimizer.warmup = 0  # outer steps

    config.compress = ml_collections.ConfigDict()
    config.compress.steps = 100  # that fine-tune images through their rounding; 0: rounded only
    config.compress.rate = 0.1  # of the rates of distill.optimizer
    config.compress.patches = 3000  # training patches that a loss is measured on
    config.compress.weights = ml_collections.ConfigDict()  # essential ones
    config.compress.weights.steps = 4000  # of training, on batches as the ceiling's
    config.compress.weights.lr = 0.03  # first rate, of values that move weights by some hundredths
    config.compress.weights.decay = 0.0  # of these values: they generalise better in fewer bytes

    config.decision = ml_collections.ConfigDict()
    config.decision.rule = "counts"  # or "soft"

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.networks = 5  # fresh networks that a package is judged by
    config.evaluate.threshold_images = 200  # training images that tau is chosen on
    config.evaluate.baselines = True
    config.evaluate.baseline_networks = 3
    config.evaluate.ceiling = ml_collections.ConfigDict()
    config.evaluate.ceiling.networks = 2
    config.evaluate.ceiling.steps = 1500
    config.evaluate.ceiling.batch = 256
    config.evaluate.ceiling.lr = 0.001
    return config.lock()
