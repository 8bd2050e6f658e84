"""What a study has measured, from the artefacts to records."""
