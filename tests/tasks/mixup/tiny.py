"""The smallest run of mixing."""

from gxdistill.tasks.mixup.settings import default_config


def config(**changes):
    config = default_config()
    config.name = "tiny"
    options = {"width": 2, "depth": 1}
    config.mixup.segmenter = options
    config.mixup.unmixer = dict(options)
    config.mixup.update(
        patients=8,
        size=16,
        pool=3,
        steps=4,
        attack_steps=2,
        batch=4,
        steps_per_call=2,
        checkpoint_every=2,
    )
    config.mixup.update(changes)
    return config
