"""Autoencoders: pictures to latents and back."""

from musiva.models.vae.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from musiva.models.vae.base import Autoencoder

__all__ = ["Autoencoder", "AutoencoderKL", "AutoencoderKLConfig"]
