"""Hostile input for every reader: small valid files, mutated; each reader takes them or says a sentence."""
