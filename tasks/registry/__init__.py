"""The model registry: what a model name points to, and what is made of it: exports, cards, promotions by hand."""
