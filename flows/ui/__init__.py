"""What Prefect's UI shows of a run: its log, and its artifacts."""
