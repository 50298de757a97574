"""Validation of prompt sets and suites: read, check, decontaminate, expectations, and files for the record."""

from tasks.validation.validator import validate

__all__ = ["validate"]
