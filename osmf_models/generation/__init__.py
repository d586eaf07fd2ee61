"""Pictures to serve: which are asked for, how they are drawn and kept, and which are not fit to be shown."""
