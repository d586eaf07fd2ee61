"""The group-aware multimodal model: group encoder, backbone, connector, denoiser, sampler."""
