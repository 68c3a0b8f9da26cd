"""Linear layers over packs, with weights laid out for this machine; README.md says why."""

from __future__ import annotations

from musiva.ops.linear.kernel import Kernel, choose_kernel, fingerprint
from musiva.ops.linear.prepacked import Linears
from musiva.ops.linear.reference import ACTIVATIONS, linear_reference

__all__ = ["ACTIVATIONS", "Kernel", "Linears", "choose_kernel", "fingerprint", "linear_reference"]
