"""TRL's GRPOTrainer with and without the curriculum, at equal budgets, in the scratchpad world."""
