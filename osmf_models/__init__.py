"""Everything that draws, learns and judges pictures; it never imports `osmf_pipelines`."""
