"""What a run will cost, from its configuration alone: rollouts, tokens, time, memory."""
