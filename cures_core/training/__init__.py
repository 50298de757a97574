"""Advantages, losses and the trainers that turn a batch of groups into one policy update."""
