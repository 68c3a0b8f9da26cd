"""What a model of clips takes, and what its autoencoder makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from musiva.core.errors import BadCheckpoint
from musiva.models.captured import ClassDenoiser, ClipKind

__all__ = ["Clips", "clip_defaults", "read_clips"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """counts: of frames that a clip may have. downscale: frames for each of a latent but the first,
    which stands for one. frames_first: the class has a latent as [F, C, h, w]. by_frame: the
    autoencoder is one of pictures, and takes one frame after the other.
    """

    counts: range
    downscale: int = 1
    frames_first: bool = False
    by_frame: bool = False

    def latent_frames(self, frames: int) -> int:
        """Of a latent, without those that only fill a patch up."""
        return (frames - 1) // self.downscale + 1

    def allowed(self) -> str:
        """The counts, in words."""
        counts = self.counts
        if len(counts) < 4:
            return ", ".join(map(str, counts))
        return f"{counts[0]}, {counts[1]}, {counts[2]} and so on to {counts[-1]}"


def clip_defaults(
    kind: ClipKind, config: Mapping[str, object], downscale: int
) -> Mapping[str, object]:
    """What a request gets that does not say, and what it may say, as fields of `Defaults`. config:
    of the transformer. downscale: pixels along each side of a position of a latent. Raises
    BadCheckpoint.
    """
    size = kind.size
    if size is None:
        size = _side(config, "sample_width") * downscale, _side(config, "sample_height") * downscale
    trained = config.get("sample_frames")
    frames = trained if isinstance(trained, int) else kind.frames
    most = 2 * frames - 1
    # A class may be made for one number of frames.
    fixed = config.get("video_length")
    if isinstance(fixed, int):
        frames = most = fixed
    return {
        "size": size,
        "max_side": 2 * max(size),
        "frames": frames,
        "max_frames": most,
        "fps": kind.fps,
    }


def read_clips(
    kind: ClipKind,
    denoiser: ClassDenoiser,
    directory: Path,
    downscale: int,
    frames: int,
    most: int,
) -> Clips:
    """downscale: frames for each of a latent. frames: of a clip, if a request does not say; most:
    that it may say. Raises BadCheckpoint for a class that is made for one size, or numbers that it
    does not take.
    """
    fixed = denoiser.signature.fixed
    if "rows" in fixed:
        raise BadCheckpoint(f"{directory / 'transformer'}: learned positions of one size: no clips")
    found = Clips(
        counts=range(fixed.get("frames", 1), most + 1, downscale * kind.together),
        downscale=downscale,
        frames_first=kind.frames_first,
        by_frame=downscale == 1,
    )
    if frames not in found.counts:
        raise BadCheckpoint(f"{directory}: frames: got {frames}; allowed: {found.allowed()}")
    return found


def _side(config: Mapping[str, object], name: str) -> int:
    value = config.get(name, config.get("sample_size"))
    if not isinstance(value, int):
        raise BadCheckpoint(f"transformer/config.json: {name}: got {value!r}; allowed: a number")
    return value
