"""What it takes to have bytes from somewhere, as far as that was seen."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Haul"]

# Of what is seen, the share that counts against what was known.
SHARE = 0.2


@dataclass(slots=True)
class Haul:
    """seconds: of something small. per_byte: seconds more."""

    seconds: float
    per_byte: float
    # Below it the time of a page tells of the first, else of the second.
    small: int = 1 << 16

    def predicted(self, num_bytes: int) -> float:
        return self.seconds + self.per_byte * num_bytes

    def saw(self, num_bytes: int, seconds: float) -> None:
        """That so much took so long."""
        if num_bytes < self.small:
            self.seconds += SHARE * (seconds - self.seconds)
        else:
            per_byte = max(seconds - self.seconds, 0.0) / num_bytes
            self.per_byte += SHARE * (per_byte - self.per_byte)
