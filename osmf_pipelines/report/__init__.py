"""The report: one HTML page that tells a day's groups, pairs and models to somebody who opens it from a mail."""
