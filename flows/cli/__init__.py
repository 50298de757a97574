"""The `cures` command, one module a group of commands; `main` joins them."""
