"""How the page's files are served: from the package alone, safely, and not sent again."""

from __future__ import annotations

import pytest

from tests.dashboard.conftest import Asked


async def test_every_answer_carries_what_keeps_it_safe(asked: Asked) -> None:
    """Pages, answers and errors: nothing inline, nothing from elsewhere, in no frame."""
    for path in ("/dashboard/nothing", "/dashboard", "/api/v1/choices", "/api/v1/nothing", "/api/v1/calls?x=1"):
        headers = (await asked.client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


async def test_the_page_is_found_without_a_slash(asked: Asked) -> None:
    """Its files are found relative to it, so it is sent to where it stands."""
    answer = await asked.client.get("/dashboard")
    assert (answer.status_code, answer.headers["location"]) == (308, "/dashboard/")


@pytest.mark.parametrize(
    "path", ["/dashboard/../app.py", "/dashboard/%2e%2e/app.py", "/dashboard//etc/passwd", "/dashboard/.hidden"]
)
async def test_nothing_but_the_page_is_served(asked: Asked, path: str) -> None:
    """Its files are known by name beforehand: there is no path to climb."""
    answer = await asked.client.get(f"http://127.0.0.1:8485{path}")
    assert answer.status_code == 404


async def test_the_page_is_only_read(asked: Asked) -> None:
    """Other methods are told which there are."""
    answer = await asked.client.post("/dashboard/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
