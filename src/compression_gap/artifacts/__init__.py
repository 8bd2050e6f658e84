"""The kinds of artefacts, and how each is built."""
