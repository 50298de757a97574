"""One stage each: effects, retries, storage, validation, versioning."""
