"""Studies: the file, the plan, the engine, the results, their statistics and verdicts."""
