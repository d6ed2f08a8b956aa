"""What an objective returns, and how its terms come and go during training."""

from dataclasses import dataclass, field

from pydantic import Field
from torch import Tensor

from mixreorg.config import StrictConfig


@dataclass(frozen=True)
class LossTerms:
    """The result of one objective on one batch."""

    total: Tensor
    """Scalar to differentiate."""
    terms: dict[str, Tensor]
    """Each loss by name, unweighted, detached."""
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    """Further scalars worth logging, detached."""


class WeightSchedule(StrictConfig):
    """Weight of a loss term over time: 0, then a linear ramp, then constant."""

    weight: float = Field(1.0, ge=0)
    """Final weight; 0 turns the term off, and what only it needs is not computed."""
    start_step: int = Field(0, ge=0)
    """First step at which the term counts."""
    ramp_steps: int = Field(0, ge=0)
    """Steps of the linear ramp from 0 to the final weight; 0 switches at once."""

    def at(self, step: int) -> float:
        """Weight at a step (counted from 0)."""
        if step < self.start_step:
            return 0.0
        if self.ramp_steps == 0:
            return self.weight
        return self.weight * min((step - self.start_step + 1) / self.ramp_steps, 1.0)
