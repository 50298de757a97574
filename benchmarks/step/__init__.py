"""One training step here and in TRL's GRPOTrainer."""
