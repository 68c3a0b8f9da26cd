"""A directory in Redis or Valkey, for clusters that outlive any of their processes.

Of a page, PREFIX:page:KEY is a hash: "told" has its bytes and seconds, "later" the pages after it,
and of each holder there is a field with its name. PREFIX:holder:NAME is where a holder is, and goes
when it has not beaten for a while. What a holder had that is gone goes with the page's own time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from musiva.core.errors import InvalidInput, Unavailable
from musiva.store.directory import NEXT, TTL, Found, Holder, News

__all__ = ["RedisDirectory"]

T = TypeVar("T")
# Seconds after which a page is forgotten that nobody has told of again.
PAGE_TTL = 3600
# What one who has nothing would be called otherwise.
TOLD, LATER = "told", "later"


class RedisDirectory:
    """Thread-safe. prefix: of all keys; clusters of their own have others."""

    def __init__(
        self, url: str, *, prefix: str = "musiva", ttl: float = TTL, timeout: float = 2.0
    ) -> None:
        """url: redis://, rediss:// or unix://, with a password where one is needed. Raises
        InvalidInput for a url, Unavailable where the client is not installed.
        """
        try:
            import redis  # pyright: ignore[reportMissingImports]
            from redis.backoff import NoBackoff  # pyright: ignore[reportMissingImports]
            from redis.retry import Retry  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            message = f"Redis is not installed ({error}): pip install musiva[redis]"
            raise Unavailable(message) from error
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._prefix, self._ttl = prefix, ttl
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                decode_responses=True,
                # Whoever asks does without rather than wait.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            allowed = "redis://HOST:PORT, rediss://HOST:PORT or unix://PATH"
            raise InvalidInput("directory", _without_password(url), allowed) from error
        self._where = _without_password(url)

    def beat(self, holder: Holder) -> bool:
        def ask() -> bool:
            told = json.dumps([holder.address, holder.place])
            known = self._redis.set(
                self._holder(holder.name), told, px=int(self._ttl * 1000), get=True
            )
            return known is not None

        return self._asked(ask)

    def tell(self, name: str, news: Sequence[News]) -> None:
        def ask() -> None:
            before = [one.after for one in news if one.after is not None]
            known: dict[str, str | None] = {}
            if before:
                pipe = self._redis.pipeline(transaction=False)
                for key in before:
                    pipe.hget(self._page(key), LATER)
                known = dict(zip(before, pipe.execute(), strict=True))
            pipe = self._redis.pipeline(transaction=False)
            later = {key: json.loads(one or "[]") for key, one in known.items()}
            for one in news:
                page = self._page(one.key)
                told = json.dumps([one.num_bytes, one.saves])
                pipe.hset(page, mapping={TOLD: told, f"by:{name}": int(time.time())})
                pipe.expire(page, PAGE_TTL)
                if one.after is not None:
                    rest = [key for key in later[one.after] if key != one.key]
                    later[one.after] = [one.key, *rest][:NEXT]
            for key, several in later.items():
                # Where nobody has told of that one, this names no page.
                pipe.hset(self._page(key), LATER, json.dumps(several))
                pipe.expire(self._page(key), PAGE_TTL)
            pipe.execute()

        self._asked(ask)

    def forget(self, name: str, keys: Sequence[str]) -> None:
        def ask() -> None:
            pipe = self._redis.pipeline(transaction=False)
            for key in keys:
                pipe.hdel(self._page(key), f"by:{name}")
            pipe.execute()

        self._asked(ask)

    def leave(self, name: str) -> None:
        self._asked(lambda: self._redis.delete(self._holder(name)))

    def find(self, key: str, depth: int) -> list[Found]:
        def ask() -> list[Found]:
            found: dict[str, Found] = {}
            wanted, seen = [key], {key}
            while wanted and len(found) < depth:
                wanted = wanted[: depth - len(found)]
                pages = self._pages(wanted)
                holders = self._holders({name for one in pages.values() for name in _names(one)})
                self._forget_dead(pages, holders)
                later: list[str] = []
                for at, one in pages.items():
                    own = tuple(holders[name] for name in _names(one) if name in holders)
                    if TOLD in one and own:
                        num_bytes, saves = json.loads(one[TOLD])
                        found[at] = Found(at, num_bytes, saves, own)
                        later += json.loads(one.get(LATER, "[]"))
                wanted = [at for at in later if at not in seen]
                seen |= set(wanted)
            return list(found.values())

        return self._asked(ask)

    def close(self) -> None:
        self._redis.close()

    def _pages(self, keys: Sequence[str]) -> dict[str, dict[str, str]]:
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.hgetall(self._page(key))
        return dict(zip(keys, pipe.execute(), strict=True))

    def _forget_dead(
        self, pages: Mapping[str, Mapping[str, str]], holders: Mapping[str, Holder]
    ) -> None:
        """Who has gone for good would be named for as long as others tell of the page."""
        pipe, long_ago = self._redis.pipeline(transaction=False), time.time() - PAGE_TTL
        for key, one in pages.items():
            for name in _names(one):
                if name not in holders and float(one[f"by:{name}"]) < long_ago:
                    pipe.hdel(self._page(key), f"by:{name}")
        if len(pipe):
            pipe.execute()

    def _holders(self, names: set[str]) -> dict[str, Holder]:
        """Those of them that live."""
        ordered = sorted(names)
        if not ordered:
            return {}
        told = self._redis.mget([self._holder(name) for name in ordered])
        return {
            name: Holder(name, *json.loads(one))
            for name, one in zip(ordered, told, strict=True)
            if one is not None
        }

    def _page(self, key: str) -> str:
        return f"{self._prefix}:page:{key}"

    def _holder(self, name: str) -> str:
        return f"{self._prefix}:holder:{name}"

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except self._errors as error:
            raise Unavailable(f"the directory {self._where} cannot be asked: {error}") from error


def _names(page: Mapping[str, str]) -> list[str]:
    return sorted(field.removeprefix("by:") for field in page if field.startswith("by:"))


def _without_password(url: str) -> str:
    head, at, rest = url.rpartition("@")
    return f"{head.partition('://')[0]}://{rest}" if at else url
