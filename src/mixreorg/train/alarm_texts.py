"""What alarms say: what was seen, what it usually means, what to try.

Every suggestion of a setting is written as the argument that makes it, so that it can be copied.
"""

import math
from collections.abc import Mapping

from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.train.config import TrainConfig


def not_finite(what: str, step: int, last: tuple[int, Mapping[str, float]] | None, run: TrainConfig) -> str:
    """The loss or gradient is not a number.

    Args:
        what: ``loss`` or ``gradient``.
        step: finished steps.
        last: step and metrics of the log record before, if there is one.
        run: the whole run.
    """
    before = ""
    if last is not None:
        names = {"loss": "loss", "gradient_norm": "gradient norm", "logit_scale": "logit scale"}
        values = [f"{label} {last[1][name]:.3g}" for name, label in names.items() if name in last[1]]
        before = f" (at step {last[0]:,}: {', '.join(values)})"
    full = "" if run.precision == "fp32" else " or --set precision=fp32"
    return (
        f"the {what} is not a finite number at step {step:,}{before}: the learning rate is too high for this batch, or "
        "a value overflowed. Resuming would repeat it, because a resumed run is exact; start a new run with "
        f"{_calmer(run)}{full}"
    )


def exploding_gradient(norm: float, usual: float, run: TrainConfig) -> str:
    """The gradient norm is far above its median."""
    return (
        f"the gradient norm is {norm:.3g}, {norm / usual:.0f} times its usual {usual:.3g}. It is clipped to "
        f"{run.optim.clip_norm:g}, so one such step does no harm; if the loss does not recover, try {_calmer(run)}"
    )


def low_logit_scale(scale: float, run: TrainConfig) -> str:
    """The logit scale has collapsed."""
    return (
        f"the logit scale has fallen to {scale:.2g} (it starts at 14.3): the model finds captions useless for telling "
        "images apart. Captions that belong to other images do this (look at some with `mixreorg data check`), and "
        f"so does a learning rate that is too high: try {_calmer(run)}"
    )


def saturated_logit_scale(scale: float, step: int, run: TrainConfig) -> str:
    """The logit scale sticks at its clamp early in the run."""
    return (
        f"the logit scale is at its limit of {scale:.0f} after {step / run.steps:.0%} of the run. Late in a large run "
        "that is normal; this early, the embeddings of different pairs are nearly the same, or a small set of pairs "
        f"is being learned by heart. Try {_calmer(run)}, or more pairs"
    )


def contrastive_at_chance(loss: float, run: TrainConfig) -> str:
    """The contrastive loss stays at log(batch)."""
    return (
        f"the contrastive loss is still {loss:.2f}, and guessing gives log({run.batch_size}) = "
        f"{math.log(run.batch_size):.2f}: nothing is learned. The embeddings have collapsed to one point or the "
        "captions do not belong to their images (look at some with `mixreorg data check`). If the data is right, try "
        f"{_calmer(run)}"
    )


def rising_loss(name: str, loss: float, best: tuple[float, int], run: TrainConfig) -> str:
    """A loss term is well above its best.

    Args:
        name: of the term.
        loss: smoothed.
        best: its lowest smoothed value and the step of it.
        run: the whole run.
    """
    return (
        f"the {name} loss has been rising: {loss:.3g}, and it was {best[0]:.3g} at step {best[1]:,}. Training has "
        f"become unstable, or the data has changed. The checkpoints around step {best[1]:,} are the better ones; for "
        f"a new run try {_calmer(run)}"
    )


def one_segment(segments: float, run: TrainConfig) -> str:
    """All patches are in one segment."""
    image = run.model.image
    remedies = [
        argument
        for argument, is_set in (
            ("--set model.image.centre_keys=true", image.centre_keys),
            ("--set model.image.assignment_logits=cosine", image.assignment_logits == "cosine"),
            ("--set model.image.group_token_std=1.0", image.group_token_std >= 1),
        )
        if not is_set
    ]
    return (
        f"an image uses {segments:.1f} of its {image.num_segments[1]} segments: grouping has collapsed, and masks "
        f"cannot get better. Start a new run with {', '.join(remedies) or _calmer(run)}"
    )


def mixed_at_chance(accuracy: float, mixing: MixReorgConfig, run: TrainConfig) -> str:
    """The mixed masks are no better than guesses."""
    easier = []
    if 2 * mixing.block < min(run.model.image.grid):
        easier.append(f"larger mixing units (--set objective.block={2 * mixing.block})")
    if mixing.group_size > 2:
        fewer = "--set objective.group_size=2"
        if (mixing.mixed_per_group or 0) > 2:
            fewer += " --set objective.mixed_per_group=2"
        easier.append(f"fewer images ({fewer})")
    later = max(min(5000, run.steps // 4), 2 * mixing.mixed.start_step)
    remedies = [f"{' or '.join(easier)} would be easier"] if easier else []
    remedies.append(f"--set objective.mixed.start_step={later} lets recognition come first")
    return (
        f"the mixed-mask accuracy is {accuracy:.2f}, and guessing among {mixing.group_size} images gives "
        f"{1 / mixing.group_size:.2f}: the mixed branch learns nothing. In a new run {'; '.join(remedies)}"
    )


def mixed_leak(accuracy: float, loss: float, mixing: MixReorgConfig) -> str:
    """The mixed masks are too good to be a sign of segmentation."""
    local, window = max(mixing.num_contextual_blocks, 1), mixing.block
    # Local blocks hold no group tokens to take the mean of.
    learned = " --set objective.mixed_group_tokens=learned" if mixing.mixed_group_tokens == "mean" else ""
    return (
        f"the mixed masks are nearly solved (accuracy {accuracy:.2f}, loss {loss:.2g}) while patches meet their whole "
        "image before or between the mixed blocks: they may carry its identity, and then this says nothing of "
        "segmentation. Trust the validation mIoU alone; to close the shortcut, start a new run with --set "
        f"model.image.num_local_blocks={local} --set model.image.local_window={window} --set objective.combine=none"
        f"{learned}"
    )


def waiting_for_data(share: float, run: TrainConfig) -> str:
    """Reading is the bottleneck."""
    workers = run.data.num_workers
    if workers:
        remedy = (
            f"stop and resume with --set data.num_workers={2 * workers} (now {workers}; up to one per core and "
            "training process), put shards on a local disk, or store pictures no larger than twice the training size"
        )
    else:
        remedy = "pictures are read in the training process itself; where cores are free, stop and resume with --set "
        remedy += "data.num_workers=4"
    return f"{share:.0%} of the time goes into waiting for data: reading is the bottleneck; {remedy}"


def slow(rate: float, best: float, wait: float | None) -> str:
    """Throughput has fallen."""
    waiting = "" if wait is None else f", with {wait:.0%} of the time spent waiting for data"
    return (
        f"the run has slowed down to {rate:,.0f} pairs/s from {best:,.0f} pairs/s{waiting}. Where that share is high "
        "the storage has become slow; otherwise something else uses the device or the cores, memory is being "
        "swapped, or the device is throttled by heat (nvidia-smi, top)"
    )


def _calmer(run: TrainConfig) -> str:
    return f"--set optim.lr={run.optim.lr / 2:.3g}, --set optim.warmup_steps={max(2 * run.optim.warmup_steps, 100)}"
