"""One adapter per log source; each yields the same raw event frames."""
