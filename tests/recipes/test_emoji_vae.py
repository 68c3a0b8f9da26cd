"""The autoencoder of the emoji recipe."""

from __future__ import annotations

import torch


def test_whitening_changes_units_not_pictures() -> None:
    import emoji_vae
    from musiva.models.vae import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(emoji_vae.VAE_CONFIG)
    pixels_BCHW = torch.rand(2, 3, 32, 24) * 2 - 1
    with torch.inference_mode():
        mean_BCHW, logvar_BCHW = vae.encode(pixels_BCHW)
        picture_BCHW = vae.decode(mean_BCHW)
        mean_C, std_C = mean_BCHW.mean((0, 2, 3)), mean_BCHW.std((0, 2, 3))
        emoji_vae.whiten(vae, mean_C, std_C)
        white_BCHW, white_logvar_BCHW = vae.encode(pixels_BCHW)
        again_BCHW = vae.decode(white_BCHW)
    assert torch.allclose(white_BCHW.mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(white_BCHW.std((0, 2, 3)), torch.ones(8), atol=1e-4)
    assert torch.allclose(again_BCHW, picture_BCHW, atol=1e-4)
    expected_BCHW = logvar_BCHW.exp().sqrt() / std_C[:, None, None]
    assert torch.allclose(white_logvar_BCHW.exp().sqrt(), expected_BCHW, atol=1e-4)
