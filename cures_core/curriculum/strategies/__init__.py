"""The strategies: implementations of `Curriculum`."""
