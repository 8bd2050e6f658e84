"""What a notebook and the command line use alike: studies, results, demonstrations, policies."""
