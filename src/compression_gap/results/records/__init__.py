"""The results of a study as records: what the page, the terminal and, through ``as_json``, programs read."""
