"""The people and the event loop of the SMTP tests, for what stands behind that server."""

from __future__ import annotations

from tests.smtp.conftest import pytest_asyncio_loop_factories as pytest_asyncio_loop_factories
from tests.smtp.conftest import village as village
