"""The benchmarks that `osmf bench` runs: planted truth, or random batches, in; JSON and where it helps a plot out."""
