"""The loop IR that every backend lowers from."""
