"""PPO on one frozen base: the maths, the model's views, and the loop."""
