"""The long form: ``python tests/soak`` prints a table of all faults. See docs/faults.md."""
