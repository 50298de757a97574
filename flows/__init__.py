"""What runs, in what order, and the `cures` command."""
