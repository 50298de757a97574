"""The strategies: implementations of `AskTell`."""
