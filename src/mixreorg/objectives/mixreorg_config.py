"""What MixReorg leaves open: the options of its objective.

Source: Cai et al., ICCV 2023, arXiv 2308.04829. The paper gives the three stages and the three losses; the exact forms
of mixing, combination and losses are this package's choices.
"""

from typing import Literal

from pydantic import Field, model_validator

from mixreorg.config import StrictConfig
from mixreorg.objectives.losses import MixedLossForm
from mixreorg.objectives.mixing import Combine
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule


class MixReorgConfig(StrictConfig):
    """MixReorg's objective. The defaults are the complete method; what the paper leaves open is an option."""

    kind: Literal["mixreorg"] = "mixreorg"
    num_contextual_blocks: int = Field(1, ge=0)
    """Lc: blocks of stage 1 that see whole images before the patches are mixed."""
    group_size: int = Field(4, ge=1)
    """K: images mixed together. A batch that K does not divide ends with a smaller group."""
    mixed_per_group: int | None = Field(None, ge=1)
    """Mixed images that are made of each group. None: as many as it has images, so that every patch is used once,
    which restoration needs. Fewer cost less time."""
    block: int = Field(2, ge=1)
    """Side of the mixing unit in patches."""
    combine: Combine = "sum"
    """Progressive mixing before each further block of stage 1."""
    mixed: WeightSchedule = WeightSchedule()
    """Weight of the mixed-mask loss."""
    restored: WeightSchedule = WeightSchedule()
    """Weight of the contrastive loss of restored images."""
    mixed_form: MixedLossForm = "mixed_probability"
    candidates: Literal["group", "batch", "nouns"] = "batch"
    """Texts that a mixed patch chooses from: its group's K captions, the whole global batch's, or the batch's nouns as
    the multi-label loss puts them into prompts. With nouns, a patch is right with any noun of its own caption."""
    text_to_patch: WeightSchedule = WeightSchedule(weight=0.0)
    """Weight of the mixed-mask loss from the other side: not which text a patch belongs to, but which patches, of all
    that the batch has mixed, a text belongs to. Off by default: the paper has one side."""
    text_to_patch_texts: Literal["captions", "nouns"] = "captions"
    """Texts that look for their patches: captions, or the batch's nouns as the multi-label loss puts them into
    prompts. A noun's patches are those of every image whose caption names it."""
    detach_text: bool = False
    """Whether the mixed losses leave the text encoder alone."""
    mixed_group_tokens: Literal["learned", "mean"] = "learned"
    """Group tokens that mixed images start with: the learned ones, or the mean of their group's contextual ones."""
    restored_group_tokens: Literal["original", "mean"] = "original"
    """Group tokens that group restored images: the original branch's, or the mean of their group's mixed ones."""
    share_mean: bool = False
    """Whether tokens that carry context enter a mix with their image's mean replaced by their group's. A patch can
    then not be told by the common mark that attention leaves on all patches of its image."""
    detach_context: bool = False
    """Whether tokens that carry context enter a mix as constants, so that the mixed loss cannot teach the original
    branch to mark them."""
    context_dropout: float = Field(0.0, ge=0, lt=1)
    """Chance that progressive mixing leaves out a mixing unit, which then goes on without context."""
    patch_weights: Literal["uniform", "relevance"] = "uniform"
    """Weights of patches in the mixed loss: all alike, or by their probability of their own caption in the original
    image, so that patches which no caption speaks of count less."""
    counted_patches: float = Field(1.0, gt=0, le=1)
    """Share of a mixed image's patches that its loss counts: those that fit their own captions best. Below 1, patches
    that no caption speaks of need not be explained; in its trial on scenes half of them taught less than all."""
    multi_label: MultiLabelConfig = MultiLabelConfig()
    """GroupViT's loss of original images on the captions' nouns; off by default."""

    @model_validator(mode="after")
    def _check(self) -> "MixReorgConfig":
        if self.mixed_form == "dice" and (self.patch_weights != "uniform" or self.counted_patches < 1):
            raise ValueError("mixed_form 'dice' compares whole masks; it needs patch_weights 'uniform' and all patches")
        if self.mixed_per_group is not None and self.mixed_per_group > self.group_size:
            raise ValueError(f"mixed_per_group {self.mixed_per_group} exceeds group_size {self.group_size}")
        if self.candidates == "nouns":
            if self.mixed_form != "mixed_probability" or self.patch_weights != "uniform" or self.counted_patches < 1:
                raise ValueError("candidates 'nouns' need mixed_form 'mixed_probability' and all patches alike")
            self._check_prompts("candidates 'nouns'", self.mixed)
        if self.text_to_patch_texts == "nouns":
            self._check_prompts("text_to_patch_texts 'nouns'", self.text_to_patch)
        if self.mixed_share < 1 and self.restored.weight > 0:
            raise ValueError("restoration needs every patch: take mixed_per_group null, or restored.weight 0")
        if self.context_dropout > 0 and self.combine == "none":
            raise ValueError("context_dropout leaves out what progressive mixing adds; it needs a combine")
        return self

    def _check_prompts(self, option: str, weight: WeightSchedule) -> None:
        """Nouns are embedded as prompts while the multi-label loss counts."""
        if not self.multi_label.is_on or self.multi_label.weight.start_step > weight.start_step:
            raise ValueError(f"{option} need the multi-label loss, which makes the prompts, from as early on")

    @property
    def mixes(self) -> bool:
        """Whether a loss of mixed masks counts at some time."""
        return self.mixed.weight > 0 or self.text_to_patch.weight > 0

    @property
    def mixed_share(self) -> float:
        """Mixed images per image."""
        return (self.mixed_per_group or self.group_size) / self.group_size
