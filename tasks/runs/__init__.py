"""A run and what is read of it: records with their figures, one read model of them all, and what is derived from it."""
