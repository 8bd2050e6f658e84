"""Actors in simulators: episodes, and videos of them."""
