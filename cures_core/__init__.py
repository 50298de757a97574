"""The CurES algorithm, policies, rollouts, rewards and training: everything that knows nothing of orchestration."""

__version__ = "0.2.0"
