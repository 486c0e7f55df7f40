"""The site that `make docs` has built, in a real browser from disk: axe in light and dark, a phone, the search."""

from pathlib import Path

import pytest

SITE = Path(__file__).parents[1] / "docs" / "_build" / "html"
MADE = ("reference/api/", "reference/commands/", "_static/")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built; make docs builds it"),
]


def pages():
    """Return the pages that were written by hand, and one of each kind that is made."""
    every = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html"))
    written = [name for name in every if not name.startswith(MADE)]
    return written + [next(name for name in every if name.startswith(made)) for made in MADE[:2]]


@pytest.mark.parametrize(("scheme", "every"), [("light", 1), ("dark", 5)])
def test_axe_finds_nothing_serious(browser, scheme, every):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, bad = browser.new_page(color_scheme=scheme), []
    for name in pages()[::every]:
        page.goto((SITE / name).as_uri())
        violations = axe.run(page).response["violations"]
        bad += [(name, each["id"]) for each in violations if each["impact"] in ("serious", "critical")]
    page.close()
    assert bad == []


def test_a_phone_scrolls_one_way_only(browser):
    page, wide = browser.new_page(viewport={"width": 390, "height": 844}), []
    for name in pages():
        page.goto((SITE / name).as_uri())
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wide.append(name)
    page.close()
    assert wide == []


def test_the_search_works_from_disk(browser):
    page = browser.new_page()
    page.goto((SITE / "search.html").as_uri() + "?q=patients")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").all_inner_texts()
    page.close()
    assert "Groups and patients" in found
