"""Everything that defines a training run, as one strict, frozen tree."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixreorg.config import StrictConfig
from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.interop.initialise import InitConfig
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.segment.protocol import Protocol, groupvit_protocol
from mixreorg.train.alarm_config import AlarmConfig

_Beta = Annotated[float, Field(ge=0, lt=1)]
Objective = Annotated[GroupViTConfig | MixReorgConfig, Field(discriminator="kind")]


class OptimConfig(StrictConfig):
    """AdamW with linear warm-up and cosine decay. The defaults are the published recipe at batch 4096,
    with warm-up for 12 million pairs; recipes compute their own."""

    lr: float = Field(1.6e-3, gt=0)
    """Peak learning rate, as it is: scale it yourself (or choose a recipe) when the batch changes."""
    warmup_steps: int = Field(5860, ge=0)
    warmup_lr: float = Field(4e-6, ge=0)
    """Learning rate of the first step."""
    final_lr: float = Field(4e-5, ge=0)
    """Learning rate at the end of the cosine."""
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    """Not applied to norms, biases, position embeddings, group tokens and learned scales."""
    clip_norm: float = Field(5.0, gt=0)
    """Largest global gradient norm."""


class DataConfig(StrictConfig):
    """Where the caption pairs come from and how they are read."""

    train: tuple[str, ...] = ()
    """Shard patterns (braces, globs; paths or URLs), folders or caption files; ``--data`` on the command line."""
    weights: tuple[float, ...] = ()
    """Share of each entry of ``train`` in the stream of pairs, in any unit, kept exactly over short periods; each
    entry then has epochs of its own. Empty: all entries joined, every pair once per epoch."""
    shuffle_shards: int = Field(0, ge=0)
    """Shards that are shuffled together: an epoch puts the shards in a random order and takes them so many at a time.
    0 shuffles over everything. Remote shards need it: the cache then has to hold about twice so many shards."""
    index_dir: str | None = None
    """Where ``mixreorg data check`` put the indexes of shards in a read-only folder; None looks beside the shards."""
    cache_dir: str | None = None
    """Folder for copies of remote shards; None: ``mixreorg/shards`` in the user's cache folder."""
    cache_gb: float = Field(50.0, gt=0, allow_inf_nan=False)
    """Largest size of that folder in GB; the shards that were used longest ago make room."""
    tokenizer: str = "clip"
    """``clip``, ``scenes-tiny`` for that of the bundled model, or a tokenizer file made by ``mixreorg data tokenizer``.
    It decides the text encoder's ``vocab_size``, ``context_length`` and ``end_id``, whatever these say."""
    nouns: str | None = None
    """Word list of the multi-label loss: a text file with one noun or phrase per line, or a folder in VOC layout, for
    its ``classes.txt``. Read where ``objective.multi_label`` counts."""
    transform: ImageTransformConfig = ImageTransformConfig()
    num_workers: int = Field(4, ge=0)
    """Reading processes per training process; 0 reads in the training process itself."""

    @model_validator(mode="after")
    def _check_weights(self) -> "DataConfig":
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights must be positive numbers, not {list(self.weights)}")
        if self.weights and self.train and len(self.weights) != len(self.train):
            raise ValueError(f"{len(self.weights)} weights for {len(self.train)} entries of train; give one per entry")
        return self


class EvaluationConfig(StrictConfig):
    """Zero-shot evaluation on a held-out split while training."""

    root: str | None = None
    """Folder in VOC layout with a ``classes.txt``; None for no evaluation."""
    split: str = "val"
    every: int = Field(1000, gt=0)
    """Steps between evaluations; the last step is always evaluated."""
    max_images: int = Field(500, gt=0)
    """The first so many images of the split."""


class EngineConfig(StrictConfig):
    """How a step is computed. Nothing here changes what is computed, but for rounding."""

    chunk: int | None = Field(None, gt=0)
    """Images per process that are encoded at once. A smaller chunk takes less memory and more time: the gradient of
    the whole batch is then accumulated from cached embeddings, for one forward pass more: 1.3 to 1.5 times the step
    on a CPU. None: the process's whole share of the batch."""
    activation_checkpointing: bool = False
    """Recompute the transformer blocks' inner activations in the backward pass instead of keeping them: about a fifth
    of the memory for a third more time (GroupViT on a CPU)."""
    compile: bool = False
    """Compile the transformer blocks with ``torch.compile``. The first step takes a minute or more; on a CPU in
    bfloat16 it did not pay."""
    channels_last: bool = False
    """Keep images and convolution weights in channels-last memory order: a tenth faster with the convolutional stem on
    a CPU, nothing with the patch stem."""


class TrainConfig(StrictConfig):
    """A whole run."""

    recipe: str = "custom"
    """Name of the recipe that the run derives from."""
    model: DualEncoderConfig = DualEncoderConfig()
    objective: Objective = MixReorgConfig()
    optim: OptimConfig = OptimConfig()
    data: DataConfig = DataConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    protocol: Protocol = groupvit_protocol()
    """How the trained model is evaluated, and the default of everybody who loads it."""
    batch_size: int = Field(4096, gt=1)
    """Images per step over all processes."""
    steps: int = Field(87900, gt=0)
    seed: int = Field(0, ge=0, lt=2**63)
    initialise: InitConfig = InitConfig()
    """Weights that the model starts from."""
    engine: EngineConfig = EngineConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "bf16"
    """Autocast of the forward pass; weights, losses and assignments stay in float32. ``auto``: ``bf16`` where the
    device computes in it, else ``fp32``; a run records which. ``fp16`` scales the loss and needs CUDA."""
    log_every: int = Field(50, gt=0)
    checkpoint_every: int = Field(1000, gt=0)
    keep_checkpoints: int = Field(2, gt=0)
    """Newest checkpoints kept beside the best one."""
    alarms: AlarmConfig = AlarmConfig()
    wandb_project: str | None = None
    """Project on Weights & Biases to log to as well; needs the extra ``wandb``."""

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        side, expected = self.data.transform.image_size, self.model.image.image_size
        if side != expected:
            raise ValueError(f"data.transform.image_size {side} differs from model.image.image_size {expected}")
        if isinstance(self.objective, MixReorgConfig):
            if self.engine.chunk is not None and self.engine.chunk % self.objective.group_size:
                raise ValueError(
                    f"engine.chunk {self.engine.chunk} must be a multiple of objective.group_size "
                    f"{self.objective.group_size}: images mixed together are encoded together"
                )
            grid = min(self.model.image.grid)
            if self.objective.group_size > 1 and self.objective.block >= grid:
                raise ValueError(
                    f"objective.block {self.objective.block} leaves nothing to mix: the {grid} x {grid} patches of an "
                    "image need at least two mixing units a side"
                )
            depth = self.model.image.depths[0]
            if self.objective.num_contextual_blocks > depth:
                raise ValueError(
                    f"objective.num_contextual_blocks {self.objective.num_contextual_blocks} "
                    f"exceeds the {depth} blocks of stage 1"
                )
            has_context = self.objective.num_contextual_blocks > self.model.image.num_local_blocks
            if self.objective.mixed_group_tokens == "mean" and not has_context:
                raise ValueError(
                    "objective.mixed_group_tokens 'mean' needs contextual blocks that hold group tokens: "
                    "num_contextual_blocks above model.image.num_local_blocks"
                )
            if self.objective.combine == "none" and not has_context:
                idle = [name for name in ("share_mean", "detach_context") if getattr(self.objective, name)]
                if idle:
                    raise ValueError(f"objective.{idle[0]} changes context, and nothing here brings any in")
        if self.evaluation.root is not None and self.evaluation.every % self.checkpoint_every:
            raise ValueError(
                f"evaluation.every {self.evaluation.every} must be a multiple of checkpoint_every "
                f"{self.checkpoint_every}, so that the best evaluated step is also saved"
            )
        return self
