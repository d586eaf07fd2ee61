"""The training machinery: ZeRO engine, loop, checkpoints, tracking."""
