"""TRL's GRPOTrainer with and without the curriculum, at equal budgets, in a world with room for working."""
