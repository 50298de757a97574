"""Policies as folders in Hugging Face format: making, loading, saving and naming them by content."""
