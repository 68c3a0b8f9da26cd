"""Pictures over HTTP: OpenAI's image API, health, metrics and a page."""

from __future__ import annotations

from musiva.server.app import AppConfig, create_app
from musiva.server.serve import bind, serve

__all__ = ["AppConfig", "bind", "create_app", "serve"]
