"""Who may ask, and as whom: keys, and the tenants that fairness is between."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musiva.core.env import checked_key
from musiva.core.errors import InvalidInput

__all__ = ["DEFAULT_TENANT", "Access", "Tenant", "read_tenants"]

DEFAULT_TENANT = "default"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_SHARE = 1e9
SHARE = f"a number above 0 and at most {MAX_SHARE:g}"
FILE = 'a JSON object such as {"NAME": {"share": 2, "key": "..."}}, keys being optional'


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """share: its weight among those that ask at a time. key: that names it, None for none.

    Raises InvalidInput, which never shows the key.
    """

    name: str
    share: float = 1.0
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        where = f"tenants.{self.name}"
        if not NAME.fullmatch(self.name):
            allowed = "a name of up to 64 letters, digits, dots, dashes and underscores"
            raise InvalidInput("tenants", self.name, allowed)
        number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not number or not 0 < self.share <= MAX_SHARE:
            raise InvalidInput(f"{where}.share", self.share, SHARE)
        checked_key(f"{where}.key", self.key)


class Access:
    """What keys open. api_key: of whoever is no tenant of its own, None for none.

    Where tenants have keys, a key says who asks, and `api_key` is the tenant "default". Where they
    have none, anybody may ask as any of them, and "default" is one. names, shares: of all tenants.
    Raises InvalidInput for "tenants".
    """

    def __init__(self, api_key: str | None, tenants: Sequence[Tenant]) -> None:
        listed = {tenant.name: tenant for tenant in tenants}
        self.names_tenants = any(tenant.key is not None for tenant in tenants)
        holders = [(t.key, t.name) for t in tenants if t.key is not None]
        if api_key is not None:
            holders.append((api_key, DEFAULT_TENANT))
        if api_key is not None or not self.names_tenants:
            listed.setdefault(DEFAULT_TENANT, Tenant(name=DEFAULT_TENANT))
        self._holders = [(key.encode(), name) for key, name in holders]
        self._check(tenants, listed)
        self.names = tuple(listed)
        self.shares = {name: float(tenant.share) for name, tenant in listed.items()}

    @property
    def asks_for_a_key(self) -> bool:
        return bool(self._holders)

    def holder(self, key: str) -> str | None:
        """The tenant of a key, None for a wrong one; how long it takes tells nothing of keys."""
        given, found = key.encode("latin-1"), None
        for known, name in self._holders:
            if secrets.compare_digest(given, known):
                found = name
        return found

    def tenant(self, asked: str | None, holder: str | None) -> str:
        """Whom a request is of that names `asked` in its body. holder: of the key that it came
        with. Raises InvalidInput.
        """
        if self.names_tenants and holder is not None:
            if asked not in (None, holder):
                raise InvalidInput("tenant", asked, f"{holder}, whose key this is, or absent")
            return holder
        if asked is not None and asked not in self.names:
            raise InvalidInput("tenant", asked, ", ".join(self.names))
        return asked or DEFAULT_TENANT

    def _check(self, tenants: Sequence[Tenant], listed: Mapping[str, Tenant]) -> None:
        name, count = Counter(t.name for t in tenants).most_common(1)[0] if tenants else ("", 0)
        if count > 1:
            raise InvalidInput("tenants", name, "names that differ")
        keys = Counter(key for key, _ in self._holders)
        for key, name in self._holders:
            if keys[key] > 1:
                raise InvalidInput(f"tenants.{name}.key", "(hidden)", "a key that no other has")
        with_key = {name for _, name in self._holders}
        without = [name for name in listed if name not in with_key]
        if self.names_tenants and without:
            allowed = "a key, since others have one and a key says who asks"
            raise InvalidInput(f"tenants.{without[0]}.key", None, allowed)


def read_tenants(path: Path) -> tuple[Tenant, ...]:
    """Those of a file. Raises InvalidInput, which never shows a key."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise InvalidInput("tenants", str(path), f"{FILE} ({reason})") from error
    if not isinstance(content, dict) or not content:
        raise InvalidInput("tenants", str(path), FILE)
    return tuple(_tenant(name, value) for name, value in content.items())


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Raises InvalidInput for a name that is said twice, of which JSON would keep the last."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidInput("tenants", name, "names that differ")
        found[name] = value
    return found


def _tenant(name: str, value: object) -> Tenant:
    if not isinstance(value, dict):
        raise InvalidInput(f"tenants.{name}", type(value).__name__, 'an object with "share"')
    unknown = sorted(set(value) - {"share", "key"})
    if unknown:
        raise InvalidInput(f"tenants.{name}", unknown[0], "share and key")
    if "share" not in value:
        raise InvalidInput(f"tenants.{name}.share", None, SHARE)
    return Tenant(name=name, share=value["share"], key=value.get("key"))
