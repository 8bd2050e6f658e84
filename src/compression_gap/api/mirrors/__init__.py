"""Mirrors: a study's numbers in other programs, while it runs. One file each; ``study`` says what is mirrored."""
