"""Runs programs that nobody trusts: confined by the kernel, killable, and never told what is expected of them."""
