"""The benchmarks that `osmf bench` runs: planted truth in, JSON and a plot out."""
