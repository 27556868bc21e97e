"""What the tutorial published for ChatGLM-6B on the COVID dialogues: numbers to stand beside ours.

Another model, tokenizer and reward model made them, so losses and rewards compare in shape only.
"""

METRICS: dict[str, dict[str, float]] = {
    "base": {"rouge-1": 12.24, "rouge-2": 1.20, "rouge-l": 9.95},
    "sft": {"rouge-1": 19.52, "rouge-2": 2.38, "rouge-l": 17.63, "response_length": 16.1},
    "ppo": {"response_length": 28.58},
}
SFT_EVAL_LOSS, SFT_STEPS = 3.0, 1130
RM_EVAL_LOSS, RM_STEPS = 0.054, 1080
PPO_REWARD, PPO_STEPS = (-0.5, -0.18), 2375
