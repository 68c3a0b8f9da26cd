"""What the client gives: pictures, and the events of a stream."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from musiva.core.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from PIL import Image

    from musiva.core.clip import Clip

__all__ = ["Completed", "Event", "Picture", "Preview", "Progress", "Seconds"]

SUFFIXES = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}


# Without slots: the decoded image is kept in the instance.
@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A picture as the file that the server sent. content: the file. format: png, jpeg or webp."""

    content: bytes = field(repr=False)
    format: str

    @cached_property
    def image(self) -> Image.Image:
        """The picture decoded, once. Raises Unavailable for a file that cannot be decoded."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.content)) as image:
                image.load()
                return image
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Unavailable(f"the server sent a broken {self.format} file: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file as it is, whole or not at all, over one that is there.

        Raises InvalidInput for the file name extension of another format, Unavailable when it
        cannot be written.
        """
        path = Path(path)
        others = [s for name, own in SUFFIXES.items() if name != self.format for s in own]
        if path.suffix.lower() in others:
            raise InvalidInput("path", str(path), f"a name that ends in .{self.format}")
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".musiva-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self.content)
                # mkstemp makes files for their owner only; give what an ordinary new file gets.
                mask = os.umask(0)
                os.umask(mask)
                os.chmod(temporary, 0o666 & ~mask)
                os.replace(temporary, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
        except OSError as error:
            raise Unavailable(f"{path}: could not be written: {error}") from error
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Of a picture, from its admission. encode, denoise, decode: of the steps that it took part in;
    queue: all else.
    """

    queue: float
    encode: float
    denoise: float
    decode: float
    total: float


@dataclass(frozen=True, kw_only=True)
class Picture(Encoded):
    """A finished picture or clip. index: which one of the request's. seed: the one that gives it
    alone.

    warnings: what the server said of values that have no effect. policy: what chose what was
    computed. computed: evaluations that were computed in full, of num_evaluations of the dense run.
    cost: full ones that all that was computed is worth; share: that over the dense run's. None of a
    server that does not tell. tiles: (rows, columns), and tile_counts: evaluations that computed
    each, row by row, of a policy that has tiles. quality_promised: that it keeps at least;
    quality_used: the lowest that was used. deadline_met: None without a deadline. reused:
    evaluations that had been computed before, and were not again.
    """

    seed: int
    index: int = 0
    warnings: tuple[str, ...] = ()
    policy: str | None = None
    num_evaluations: int | None = None
    computed: int | None = None
    cost: float | None = None
    share: float | None = None
    tiles: tuple[int, int] | None = None
    tile_counts: tuple[int, ...] = ()
    quality_promised: int | None = None
    quality_used: int | None = None
    deadline_met: bool | None = None
    reused: int | None = None
    seconds: Seconds | None = None

    @property
    def moves(self) -> bool:
        """Whether it is a clip, of which `image` is the first frame."""
        return getattr(self.image, "n_frames", 1) > 1

    @cached_property
    def clip(self) -> Clip:
        """All of its frames, decoded once. Raises Unavailable as `image` does."""
        from musiva.core.clip import Clip

        return Clip.read(self.content)

    @cached_property
    def parameters(self) -> dict[str, object]:
        """What made it, as its file carries it: a body for `POST /v1/images/generations`.

        Raises InvalidInput when it carries nothing.
        """
        from musiva.core.provenance import read_parameters

        return read_parameters(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Picture `index` has had `evaluation` of `num_evaluations` model evaluations.

    waiting: requests before it in the queue, None once it runs. computed, cost, share: so far, as
    of a `Picture`. tiles: (rows, columns), and active_tiles: which of them the evaluation computed,
    row by row, of a policy that has tiles. quality: in use, None until it runs. predicted_seconds:
    from its admission to its last picture, as the first progress tells.
    """

    index: int
    evaluation: int
    num_evaluations: int
    waiting: int | None = None
    computed: int | None = None
    cost: float | None = None
    share: float | None = None
    tiles: tuple[int, int] | None = None
    active_tiles: tuple[bool, ...] = ()
    quality: int | None = None
    predicted_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Preview(Encoded):
    """What picture `index` is on its way to. number: counts the previews of this picture from 0.

    computed: whether the model ran at the evaluation that it shows. tiles, active_tiles: as of
    `Progress`.
    """

    index: int
    number: int
    evaluation: int
    num_evaluations: int
    computed: bool | None = None
    tiles: tuple[int, int] | None = None
    active_tiles: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """Picture `index` is done. timing: seconds by what they were spent on, as the server tells."""

    index: int
    picture: Picture
    timing: Mapping[str, object] = field(default_factory=dict)


Event = Progress | Preview | Completed
