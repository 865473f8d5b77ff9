"""What a run is made of. Sizes are global: all ranks and accumulation steps together."""

from train.config.data import DataConfig, InstructionsConfig, WorldConfig
from train.config.engine import (
    AdaptersConfig,
    EngineConfig,
    LoraConfig,
    OptimizerConfig,
    StageConfig,
)
from train.config.generation import (
    AutoencodeConfig,
    GenerateConfig,
    ReinforceConfig,
    RememberConfig,
)
from train.config.run import EvaluateConfig, TrainConfig
from train.config.understanding import (
    CompressConfig,
    InstructConfig,
    VerifyGrpoConfig,
    VerifyPosteriorConfig,
)

__all__ = [
    "AdaptersConfig",
    "AutoencodeConfig",
    "CompressConfig",
    "DataConfig",
    "EngineConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "InstructConfig",
    "InstructionsConfig",
    "LoraConfig",
    "OptimizerConfig",
    "ReinforceConfig",
    "RememberConfig",
    "StageConfig",
    "TrainConfig",
    "VerifyGrpoConfig",
    "VerifyPosteriorConfig",
    "WorldConfig",
]
