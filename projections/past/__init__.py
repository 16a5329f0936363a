"""Replay: the views at any moment, what an event changed in them, and why."""
