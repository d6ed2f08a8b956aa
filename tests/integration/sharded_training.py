"""``mixreorg train`` with parameters sharded over CPU processes (FSDP2).

Accelerate turns FSDP2 on for accelerators alone; what it does with it is the same on CPU.
"""

import sys

from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from mixreorg.cli.main import main
from mixreorg.train import engine
from mixreorg.train.config import TrainConfig

make_accelerator = engine._accelerator


def sharded_accelerator(config: TrainConfig, device: engine.Device) -> Accelerator:
    accelerator = make_accelerator(config, device)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["TransformerBlock"],
        cpu_ram_efficient_loading=False,
    )
    return accelerator


engine._accelerator = sharded_accelerator
sys.exit(main())
