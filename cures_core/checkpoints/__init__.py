"""Training state on disk: what a checkpoint holds, and which ones an epoch keeps while it runs."""
