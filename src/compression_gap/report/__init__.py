"""The report: numbers as people read them, figures, and pages of one HTML file."""
