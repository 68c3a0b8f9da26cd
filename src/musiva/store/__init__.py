"""The store: features of tokens that a step did not compute, kept under a byte budget.

When only some tiles of a picture are computed, attention still needs keys and values of all of its
tokens. An *entry* holds the features of all tokens of one owner (a sample branch) at one site, in
pages of `page_tokens` consecutive tokens, the last one part-filled.

- **One arena, a slab for each kind of page.** The budget is one block of memory, taken at the first
  reservation. The slab of a kind (feature shape, dtype) is a view of the whole of it, [P,
  page_tokens, *feature], so that a kernel reaches the pages of all owners from one base. No slab
  ever grows, moves or has to be given back, views stay true, and any free byte serves any kind.
- **Consecutive pages first.** Such an entry is read and written in place, without a copy; scattered
  pages are used only where no extent is long enough.
- **All or nothing.** An owner reserves all of its sites at once and is evicted whole, since one
  missing site makes the others useless. Its worth is a value (saved ms x hit probability); those
  that go are worth less per byte, and less in total, than the one that comes. So each eviction
  raises the value that is kept, and owners of equal worth never drive each other out.
- **Explicit versions.** Every token says which evaluation wrote it, so a cap on age can be checked.
- **Nothing stale is read.** Pages are not cleared, but an entry is readable only after each of its
  tokens was written.

Not thread-safe: the executor that owns a store is the only one to call it.

Beside it `Cache` has pages that never change, published for a whole cluster (`musiva.store.cache`).
"""

from __future__ import annotations

from musiva.store.cache import Cache, CacheFigures, directory_of
from musiva.store.directory import TTL, Directory, Embedded, Found, Holder, answering
from musiva.store.entry import Need
from musiva.store.figures import Figures
from musiva.store.folder import Folder
from musiva.store.page import Page, key_of
from musiva.store.store import Store

__all__ = [
    "TTL",
    "Cache",
    "CacheFigures",
    "Directory",
    "Embedded",
    "Figures",
    "Folder",
    "Found",
    "Holder",
    "Need",
    "Page",
    "Store",
    "answering",
    "directory_of",
    "key_of",
]
