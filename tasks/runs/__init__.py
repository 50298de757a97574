"""A run and what is read of it: records, figures, comparison, live view, explanation, retention."""
