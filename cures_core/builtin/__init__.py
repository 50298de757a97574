"""The built-in prompts: digit chains for the small policy; sums, and a mixture of tasks, for a small pretrained one."""
