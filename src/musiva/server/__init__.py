"""Pictures over HTTP: OpenAI's image API, jobs, health, metrics and the studio."""

from __future__ import annotations

from musiva.server.app import create_app
from musiva.server.config import AppConfig
from musiva.server.serve import bind, serve
from musiva.server.tenants import Tenant, read_tenants

__all__ = ["AppConfig", "Tenant", "bind", "create_app", "read_tenants", "serve"]
