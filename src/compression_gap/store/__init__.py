"""The content-addressed store, and the engine that fills it. It knows no robots."""
