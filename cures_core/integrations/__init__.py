"""The curriculum inside other people's trainers; each module needs the package it is named after.

`trl`: GRPOTrainer. `verl`, `prime_rl`: their samplers. `torch_sampler`: any data loader. `overlapping`: what trainers
need whose rollouts of several steps overlap. docs/library.md has a recipe for each.
"""
