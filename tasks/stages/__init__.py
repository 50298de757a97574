"""The eight stages, and their common life: key, committed record or work, files, record last."""
