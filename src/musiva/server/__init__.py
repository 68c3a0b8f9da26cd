"""Pictures over HTTP: OpenAI's image API, health, metrics and the studio."""

from __future__ import annotations

from musiva.server.app import create_app
from musiva.server.config import AppConfig
from musiva.server.serve import bind, serve

__all__ = ["AppConfig", "bind", "create_app", "serve"]
