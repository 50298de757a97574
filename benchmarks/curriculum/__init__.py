"""The curriculum beside its rivals: worlds, methods, arms of real training, simulations, and their analysis."""
