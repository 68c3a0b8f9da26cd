"""The page as files and headers, without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from musiva.studio import routes
from musiva.studio.assets import PAGE

SCRIPTS = sorted(path.name for path in PAGE.glob("*.js"))
MAX_BYTES = 210_000


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes())) as client:
        yield client


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def tags() -> list[tuple[str, dict[str, str | None]]]:
    return Tags((PAGE / "index.html").read_text(encoding="utf-8")).found


@pytest.mark.parametrize("path", ["/", "/studio/app.js", "/studio/studio.css", "/studio/mark.svg"])
def test_files_are_typed_tagged_and_guarded(client: TestClient, path: str) -> None:
    answer = client.get(path)
    kinds = {"/": "text/html", "js": "text/javascript", "ss": "text/css", "vg": "image/svg+xml"}
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(kinds[path[-2:]])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    again = client.get(path, headers={"If-None-Match": f'"other", W/{answer.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.head(path).headers["ETag"] == answer.headers["ETag"]


@pytest.mark.parametrize("path", ["/studio/none.js", "/studio/assets.py", "/studio/../assets.py"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_nothing_comes_from_elsewhere_or_stands_inline(
    client: TestClient, tags: list[tuple[str, dict[str, str | None]]]
) -> None:
    for tag, attributes in tags:
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        assert tag != "style"
        if tag == "script":
            assert attributes.get("src"), "a script has a file"
        address = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
        if address:
            assert client.get(address).status_code == 200, address
    texts = [path.read_text(encoding="utf-8") for path in PAGE.iterdir()]
    addresses = {found for text in texts for found in re.findall(r"https?://[^\s\"'`)]+", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}, "only a name, nothing that is fetched"


def test_all_modules_are_fetched_at_once(tags: list[tuple[str, dict[str, str | None]]]) -> None:
    linked = [a.get("href") or a.get("src") for tag, a in tags if tag in ("link", "script")]
    for name in SCRIPTS:
        assert f"/studio/{name}" in linked
    total = sum(path.stat().st_size for path in PAGE.iterdir())
    assert total < MAX_BYTES


@pytest.mark.parametrize("name", SCRIPTS)
def test_modules_are_typed_and_readable(name: str) -> None:
    text = (PAGE / name).read_text(encoding="utf-8")
    assert text.startswith("// @ts-check\n/**")
    assert text.count("\n") < 300
    assert "innerHTML" not in text
    assert "insertAdjacentHTML" not in text


def test_every_icon_is_drawn() -> None:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    scripts = "".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    drawn = set(re.findall(r'<symbol id="icon-(\w+)"', page))
    used = set(re.findall(r'href="#icon-(\w+)"', page))
    used |= set(re.findall(r'icon(?:\(|: )"(\w+)"', scripts))
    assert used == drawn


def test_every_control_has_a_name(tags: list[tuple[str, dict[str, str | None]]]) -> None:
    labelled = {attributes.get("for") for tag, attributes in tags if tag == "label"}
    for tag, attributes in tags:
        if tag in ("textarea", "select") or (tag == "input" and "name" not in attributes):
            named = attributes.get("id") in labelled or "aria-label" in attributes
            hidden = attributes.get("aria-hidden") == "true"
            wrapped = attributes.get("type") == "checkbox"
            assert named or hidden or wrapped, attributes
