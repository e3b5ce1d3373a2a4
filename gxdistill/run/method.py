"""The method of a job: from its settings to the outer loop and what it starts from."""

import jax

from gxdistill.distill import init, meta_gradient, outer
from gxdistill.distill.losses import inner_loss
from gxdistill.distill.memory import Memory
from gxdistill.distill.unroll import Training, plan
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled
from gxdistill.run.job import Job, Use


def build(job: Job) -> tuple[outer.Distiller, outer.DistillState]:
    """Builds the outer loop and its first state; says how much memory a gradient takes.

    Raises:
      UserError: settings do not fit each other.
    """
    settings = job.config.distill
    known_key = job.key(Use.KNOWN) if job.known else None
    training = Training(memory=Memory(settings.memory, settings.memory_budget_mb << 20))
    data = start(job)
    try:
        _say_memory(job, training, data)
        step = meta_gradient.full_unroll(
            job.network,
            rule=settings.label_rule,
            known_key=known_key,
            networks=settings.networks,
            training=training,
        )
        optimizer = outer.optimizer(settings.outer_steps, **settings.optimizer)
    except ValueError as error:
        raise UserError(f"distill: {error}") from error
    loop = outer.distiller(step, optimizer)
    return loop, loop.init(data, job.key(Use.LOOP))


def _say_memory(job: Job, training: Training, data: Distilled) -> None:
    params = jax.eval_shape(job.network.init, job.key(Use.KNOWN))
    loss = inner_loss(job.network, job.config.distill.label_rule)
    name, sizes = plan(loss, params, data, training, len(data.log_lr))
    each = ", ".join(f"{name} {size / 2**20:.3g} MiB" for name, size in sizes.items())
    job.say(f"memory of a gradient through {len(data.log_lr)} inner steps: {each}; taking {name}")


def start(job: Job) -> Distilled:
    """Makes the distilled data that learning starts from: noise, or real patches."""
    settings = job.config.distill
    common = {"epochs": settings.epochs, "lr": settings.start_lr, "rule": settings.label_rule}
    steps, per_step = settings.steps, settings.images_per_step
    if settings.started_from == "noise":
        return init.noise(
            job.key(Use.START),
            steps=steps,
            images_per_step=per_step,
            shape=job.shape,
            num_classes=job.classes,
            **common,
        )
    # A balanced batch takes the classes in turn, as `label_classes` does.
    real = job.draw(steps * per_step)(job.feed, job.key(Use.START))
    images = real.images.reshape(steps, per_step, *job.shape)
    return init.start(images, real.labels.reshape(steps, per_step), job.classes, **common)
