"""The jobs that a server keeps: for how long, in how many bytes, and who finds them."""

from __future__ import annotations

import asyncio

import pytest

from musiva.core.errors import InvalidInput
from musiva.core.types import Path, Request
from musiva.server import AppConfig
from musiva.server.answers import ErrorDetail
from musiva.server.errors import ApiError
from musiva.server.job_record import JobRecord
from musiva.server.job_store import Claim, JobStore


class Jobs:
    """A store with a clock of its own, in a running loop."""

    def __init__(self, **limits: float) -> None:
        self.now = 1000.0
        self.store = JobStore(AppConfig(**limits), lambda: self.now)  # type: ignore[arg-type]

    def begun(self, name: str, *, tenant: str = "default", key: str | None = None) -> JobRecord:
        task = asyncio.current_task()
        assert task is not None
        record = JobRecord(
            Request(
                id=name,
                prompt="a fox",
                size=(16, 16),
                path=Path(steps=4),
                seed=1,
                guidance=1.0,
                tenant=tenant,
            ),
            model="tiny",
            num_evaluations=4,
            created=self.now,
            now=self.now,
            predicted=1.0,
            task=task,
            key=key,
        )
        self.store.add(record)
        return record

    def ended(self, name: str, num_bytes: int = 10, **more: str) -> JobRecord:
        record = self.begun(name, **more)
        record.succeed(bytes(num_bytes), self.now)
        self.store.end(record)
        return record

    def kept(self) -> list[str]:
        records, more = self.store.page(None, limit=100, after=None, status=None)
        assert not more
        return [record.id for record in records]


def test_what_has_ended_is_kept_for_a_while() -> None:
    async def test() -> None:
        jobs = Jobs(job_seconds=60)
        jobs.begun("running")
        jobs.ended("old")
        jobs.now += 30
        jobs.ended("young")
        assert jobs.kept() == ["young", "old", "running"]
        jobs.now += 30
        assert jobs.kept() == ["young", "running"]
        with pytest.raises(ApiError, match="still kept") as caught:
            jobs.store.get("old", None)
        assert caught.value.status == 404
        jobs.now += 1e6
        assert jobs.kept() == ["running"]
        assert jobs.store.num_bytes == 0

    asyncio.run(test())


def test_results_are_kept_within_their_bytes() -> None:
    async def test() -> None:
        jobs = Jobs(max_job_bytes=100)
        for i in range(6):
            jobs.ended(f"{i}", 30)
            assert jobs.store.num_bytes <= 100
        assert jobs.kept() == ["5", "4", "3"]
        jobs.begun("running")
        # One that is larger than all is kept, but nothing beside it.
        jobs.ended("large", 500)
        assert jobs.kept() == ["large", "running"]
        jobs.ended("small", 1)
        assert jobs.kept() == ["small", "running"]
        assert jobs.store.num_bytes == 1

    asyncio.run(test())


def test_so_many_that_have_ended_are_kept() -> None:
    async def test() -> None:
        jobs = Jobs(max_ended_jobs=3)
        for i in range(5):
            record = jobs.begun(f"failed {i}")
            record.fail(ErrorDetail(message="no", type="server_error", code="x"), jobs.now)
            jobs.store.end(record)
        waiting = [f"waiting {i}" for i in range(50)]
        for name in waiting:
            jobs.begun(name)
        assert jobs.kept() == [*reversed(waiting), "failed 4", "failed 3", "failed 2"]
        assert len(jobs.store) == 53

    asyncio.run(test())


def test_the_oldest_end_goes_first_whenever_it_was_made() -> None:
    async def test() -> None:
        jobs = Jobs(max_ended_jobs=2)
        slow = jobs.begun("slow")
        for name in ("a", "b"):
            jobs.ended(name)
        slow.succeed(b"late", jobs.now)
        jobs.store.end(slow)
        assert jobs.kept() == ["b", "slow"]

    asyncio.run(test())


def test_a_key_lives_as_long_as_its_job() -> None:
    async def test() -> None:
        jobs, loop = Jobs(job_seconds=60), asyncio.get_running_loop()
        creation: asyncio.Future[JobRecord] = loop.create_future()
        claim = Claim(b"body", creation)
        assert jobs.store.claimed("a", "key", b"body") is None
        jobs.store.claim("a", "key", claim)
        assert jobs.store.claimed("a", "key", b"body") is claim
        assert jobs.store.claimed("b", "key", b"other") is None
        with pytest.raises(ApiError, match="another one; it came with another body") as caught:
            jobs.store.claimed("a", "key", b"other")
        assert caught.value.status == 409
        record = jobs.begun("1", tenant="a", key="key")
        creation.set_result(record)
        await asyncio.sleep(0)
        record.succeed(b"", jobs.now)
        jobs.store.end(record)
        assert jobs.store.claimed("a", "key", b"body") is claim
        jobs.now += 60
        assert jobs.store.claimed("a", "key", b"other") is None

    asyncio.run(test())


@pytest.mark.parametrize("how", ["refused", "cancelled"])
def test_a_key_of_which_no_job_came_is_free_again(how: str) -> None:
    async def test() -> None:
        jobs = Jobs()
        creation: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        jobs.store.claim("a", "key", Claim(b"body", creation))
        if how == "refused":
            creation.set_exception(ApiError(429, "full", code="rate_limit_exceeded"))
        else:
            creation.cancel()
        await asyncio.sleep(0)
        assert jobs.store.claimed("a", "key", b"other") is None

    asyncio.run(test())


def test_tenants_see_their_own() -> None:
    async def test() -> None:
        jobs = Jobs()
        for i in range(6):
            jobs.begun(f"{i}", tenant="ab"[i % 2])

        def page(tenant: str, after: str | None = None) -> list[str]:
            found, _ = jobs.store.page(tenant, limit=2, after=after, status=None)
            return [record.id for record in found]

        assert page("a") == ["4", "2"]
        assert page("a", "2") == ["0"]
        assert page("b", "3") == ["1"]
        assert page("c") == []
        with pytest.raises(InvalidInput, match="after: got '3'"):
            page("a", "3")
        assert jobs.store.get("1", "b").tenant == "b"
        with pytest.raises(ApiError):
            jobs.store.get("1", "a")

    asyncio.run(test())
