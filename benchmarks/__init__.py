"""Measurements that the claims of this project rest on."""
