"""A market whose truth is known exactly: products, scenes, users' tastes. Numpy only, no torch, no Spark."""
