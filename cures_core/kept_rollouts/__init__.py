"""Rollouts that are kept to be read: which ones, in what form, and without what nobody may read."""
