"""What the tutorial published for ChatGLM-6B on the COVID dialogues: numbers to show beside ours on the same test data.

Another model, tokenizer and reward model made them, so losses and rewards compare in shape only.
"""

from collections.abc import Mapping
from typing import Any

TEST_DATA = "740bcdc3140190ef1e1d2e3842b5239f2f5f0a00bfcb6591274daf0e238cab3c"
"""SHA-256 of test_data.json of the COVID dialogues."""
METRICS: dict[str, dict[str, float]] = {
    "base": {"rouge-1": 12.24, "rouge-2": 1.20, "rouge-l": 9.95},
    "sft": {"rouge-1": 19.52, "rouge-2": 2.38, "rouge-l": 17.63, "response_length": 16.1},
    "ppo": {"response_length": 28.58},
}
"""The unit of the lengths is not stated; they are shown beside characters."""
SFT_EVAL_LOSS, SFT_STEPS = 3.0, 1130
RM_EVAL_LOSS, RM_STEPS = 0.054, 1080
PPO_REWARD, PPO_STEPS = (-0.5, -0.18), 2375


def comparable(data: Mapping[str, Any]) -> bool:
    """Whether a run has the tutorial's test data.

    Args:
        data: what preprocess recorded of its sources.
    """
    return bool(data.get("sha256", {}).get("test") == TEST_DATA)
