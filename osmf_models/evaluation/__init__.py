"""Judging models; the only layer that reads a simulator's truth."""
