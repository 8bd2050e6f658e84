"""Outcomes of evaluations that were run elsewhere: one reader a format, one record for all."""
