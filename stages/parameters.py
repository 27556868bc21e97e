"""All parameters that are declared: docs/parameters.md is made of this.

python -m stages.parameters > docs/parameters.md
"""

from typing import Any

from stages.base import BaseConfig
from stages.evaluate import EvaluateConfig
from stages.models.base_model import ModelConfig
from stages.predict import PredictConfig
from stages.preprocess import DataConfig
from stages.report import ReportConfig
from stages.rl.config import PpoConfig
from stages.rm import RmConfig
from stages.sft import SftConfig

SECTIONS: dict[str, Any] = {
    "seed": int,
    "model": ModelConfig,
    "data": DataConfig,
    "base": BaseConfig,
    "sft": SftConfig,
    "rm": RmConfig,
    "ppo": PpoConfig,
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
}
"""The sections of params.yaml, in its order."""
