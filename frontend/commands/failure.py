"""What a command raises to end with one clear line."""

from __future__ import annotations


class CommandError(Exception):
    """A reason, for the user, why a command cannot do what was asked."""
