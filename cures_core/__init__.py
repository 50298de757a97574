"""The CurES algorithm, policies, rollouts, rewards and training: everything that knows nothing of orchestration."""

__version__ = "0.1.0"
