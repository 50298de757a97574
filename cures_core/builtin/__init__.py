"""The built-in prompts: digit chains for the small policy, sums for a small pretrained one."""
