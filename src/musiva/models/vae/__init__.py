"""Autoencoders: pictures to latents and back."""

from musiva.models.vae.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig

__all__ = ["AutoencoderKL", "AutoencoderKLConfig"]
