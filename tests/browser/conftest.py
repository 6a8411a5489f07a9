"""Pages in a real browser, where every message, dialog and request is an error."""

from __future__ import annotations

import pytest


@pytest.fixture
def open_page(browser):
    """Open a file; any console message, page error, dialog or request fails the test."""
    contexts = []

    def open_file(path, *, width=1200, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append((context, []))
        wrong = contexts[-1][1]
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.on(
            "request", lambda request: request.url == path.as_uri() or wrong.append(request.url)
        )
        page.goto(path.as_uri())
        return page

    yield open_file
    for context, wrong in contexts:
        context.close()
        assert wrong == []
