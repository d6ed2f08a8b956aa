"""When a run raises an alarm."""

from pydantic import Field

from mixreorg.config import StrictConfig


class AlarmConfig(StrictConfig):
    """Thresholds of the alarms that watch a run's log records.

    Conditions that only time can tell from the noise of single batches must hold for ``patience`` records and, where
    they are about learning rather than speed, for ``patience_share`` of the run.
    """

    enabled: bool = True
    """Whether to watch at all. A loss or gradient that is not a number stops the run in any case."""
    patience: int = Field(10, gt=0)
    """Log records that a condition must hold before it is raised, and be gone before it can be raised again."""
    patience_share: float = Field(0.05, ge=0, lt=1)
    """Share of the run's steps that a failure to learn must last."""
    gradient_factor: float = Field(10.0, gt=1)
    """Gradient norm over its running median from which it explodes; raised at once."""
    min_logit_scale: float = Field(2.0, gt=0)
    """Exponentiated logit scale (at first 14.3) below which all captions look alike."""
    min_segments: float = Field(1.5, ge=1)
    """Segments in use per image below which all patches are in one."""
    chance_margin: float = Field(0.03, ge=0, lt=1)
    """How near to guessing is at chance: of the contrastive loss, as a share of ``log(batch)``; of the mixed-mask
    accuracy, as a share of the way from ``1 / K`` to 1."""
    leak_accuracy: float = Field(0.85, gt=0, lt=1)
    """Mixed-mask accuracy, as a share of the way from ``1 / K`` to 1, that is too good to come from single mixing
    units where the patches could also carry their image's identity."""
    max_data_wait: float = Field(0.3, gt=0, lt=1)
    """Share of the time spent waiting for data."""
    loss_rise: float = Field(0.15, gt=0)
    """Rise of a loss term over its best smoothed value, relative to it."""
    throughput_drop: float = Field(0.5, gt=0, lt=1)
    """Pairs per second relative to the fastest so far."""
