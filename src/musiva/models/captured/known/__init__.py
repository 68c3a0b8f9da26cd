"""What the classes of diffusers are called with."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from musiva.models.captured.calls import original
from musiva.models.captured.known import clips, clips_2, pictures, sequences, sequences_2
from musiva.models.captured.known.base import Known, Signature
from musiva.models.captured.known.conventional import conventional

__all__ = ["KNOWN", "signature_of"]

KNOWN: Mapping[str, Known] = {
    **pictures.KNOWN,
    **sequences.KNOWN,
    **sequences_2.KNOWN,
    **clips.KNOWN,
    **clips_2.KNOWN,
}


def signature_of(module: nn.Module) -> Signature:
    """By the name of its class, or that of one that it is made from; else by the names of its
    arguments. Raises CannotCapture where these do not tell.
    """
    module = original(module)
    config = dict(getattr(module, "config", {}))
    for one in type(module).__mro__:
        if one.__name__ in KNOWN:
            return KNOWN[one.__name__](config)
    return conventional(module, config)
