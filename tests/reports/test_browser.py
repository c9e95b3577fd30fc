"""report.html as a person meets it: in a real headless Chromium, with keys alone, in the dark, on a phone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.reports.browser import CHROMIUM, DRIVER, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
]
COLUMN = (
    "Array.from(document.querySelectorAll('#table tbody tr:not([hidden])'), r => r.cells[{}].dataset.value ?? null)"
)
WITHIN_S = 10.0
FOCUS = "return document.activeElement.id || document.activeElement.textContent"


@pytest.fixture(scope="module")
def window(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(window, written) -> Browser:
    """The page, opened anew."""
    window.open(Path("/dev/null"))
    window.log()
    window.open(written.folder / "report.html")
    return window


def column(page: Browser, index: int) -> list[str | None]:
    return page.run(f"return {COLUMN.format(index)}")


def becomes(page: Browser, expression: str, value: object) -> bool:
    """Whether an expression comes to have a value: an address that changes is acted upon a moment later."""
    end = time.monotonic() + WITHIN_S
    while (found := page.run(f"return {expression}")) != value and time.monotonic() < end:
        time.sleep(0.02)
    return bool(found == value)


def tab_to(page: Browser, text: str, at_most: int = 60) -> None:
    """Press Tab until the focus is there."""
    for _ in range(at_most):
        page.keys("Tab")
        if page.run(FOCUS).strip() == text:
            return
    raise AssertionError(f"{text!r} cannot be reached with Tab; at {page.run(FOCUS)!r}")


def test_the_page_opens_without_an_error_and_nothing_hostile_ran(page):
    assert page.log() == []
    assert page.run("return document.title") == "made: study report"
    assert page.run("return performance.getEntriesByType('resource').length") == 0


def test_a_heading_sorts_up_then_down_and_arms_without_a_value_stay_last(page):
    assert None in column(page, 2)
    for sort, reverse in (("ascending", False), ("descending", True)):
        page.run("document.querySelectorAll('#table thead button')[2].click()")
        found = column(page, 2)
        numbers = [float(value) for value in found if value is not None]
        assert numbers == sorted(numbers, reverse=reverse)
        assert found[len(numbers) :] == [None]
        heads = page.run("return Array.from(document.querySelectorAll('#table thead th'), h => h.ariaSort)")
        assert [head for head in heads if head] == [sort]


def test_names_sort_as_text(page):
    page.run("document.querySelectorAll('#table thead button')[0].click()")
    page.run("document.querySelectorAll('#table thead button')[0].click()")
    assert column(page, 0) == [f"arm-{index:04d}" for index in (5, 4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("asked", "arms"), [("rate 4", ["arm-0004"]), ("NaN", ["arm-0003"]), ("nan rate 4", []), ("", range(6))]
)
def test_the_filter_finds_names_reasons_and_causes(page, asked, arms):
    page.run("document.getElementById('filter').focus()")
    page.keys(asked)
    assert len(column(page, 0)) == len(arms)
    assert set(arms) <= {*column(page, 0), *range(6)}
    assert page.run("return document.getElementById('shown').textContent") == f"{len(arms)} of 6 arms"


def test_the_choice_shows_arms_by_state(page):
    choose = "const g = document.getElementById('group'); g.value = '{}'; g.dispatchEvent(new Event('change'))"
    page.run(choose.format("trouble"))
    found = column(page, 0)
    assert "arm-0003" in found
    assert not {"arm-0000", "arm-0005"} & set(found)
    page.run(choose.format("waiting"))
    assert column(page, 0) == ["arm-0005"]


def test_keys_alone_open_an_arm_a_run_of_it_and_close_it_again(page):
    tab_to(page, "filter")
    page.keys("arm-0003")
    tab_to(page, "arm-0003")
    page.keys("Enter")
    assert becomes(page, "document.getElementById('detail').open", True)
    assert becomes(page, "document.getElementById('detail-title').textContent", "arm-0003")
    tab_to(page, "1")
    page.keys("Enter")
    assert becomes(page, "document.getElementById('detail-title').textContent", "arm-0003, seed 1")
    shown = page.run("return document.getElementById('detail-body').innerText")
    for part in ("NaN", "train.optimizer.lr", "loss is nan at step 512", "wall time, all attempts", "<script>"):
        assert part in shown
    page.keys("Escape")
    assert becomes(page, "document.getElementById('detail').open", False)
    assert becomes(page, "location.hash", "")
    assert page.run(FOCUS) == "arm-0003", "the focus is back where it was"


def test_keys_alone_sort(page):
    tab_to(page, "arm")
    page.keys("Enter", "Space")
    assert column(page, 0)[0] == "arm-0005"


def test_an_address_opens_a_run(window, written):
    window.open(Path("/dev/null"))
    window.open(written.folder / "report.html", "#/run/arm-0000/2")
    assert window.run("return document.getElementById('detail-title').textContent") == "arm-0000, seed 2"
    assert "step" in window.run("return document.getElementById('detail-body').innerText")


def test_links_of_the_details_lead_to_files_that_are_there(window, written):
    window.open(Path("/dev/null"))
    window.open(written.folder / "report.html", "#/run/arm-0003/1")
    hrefs = "Array.from(document.querySelectorAll('#detail-body a'), a => a.getAttribute('href'))"
    places = [each for each in window.run(f"return {hrefs}") if not each.startswith("#")]
    assert len(places) == 2, "the log and the record"
    assert all((written.folder / place).exists() for place in places)


def brightness(page: Browser, what: str, of: str = "document.body") -> float:
    red, green, blue = page.run(f"return getComputedStyle({of}).{what}.match(/[\\d.]+/g).slice(0, 3).map(Number)")
    return (red + green + blue) / 3


def test_the_button_turns_light_into_dark_figures_included(page):
    page.run("localStorage.clear(); delete document.documentElement.dataset.theme")
    text = "document.querySelector('.drawing svg text')"
    assert brightness(page, "backgroundColor") > 200 > 100 > brightness(page, "fill", text)
    tab_to(page, "theme")
    page.keys("Enter")
    assert brightness(page, "backgroundColor") < 60 < 180 < brightness(page, "color")
    assert brightness(page, "fill", text) > 180
    page.run("document.getElementById('theme').click()")
    assert brightness(page, "backgroundColor") > 200


def test_the_page_is_dark_where_the_system_is(tmp_path, written):
    with Browser(tmp_path, dark=True) as browser:
        browser.open(written.folder / "report.html")
        assert brightness(browser, "backgroundColor") < 60
        assert browser.run("return document.getElementById('theme').textContent") == "Light"


def test_400_pixels_are_wide_enough(tmp_path, written):
    with Browser(tmp_path, width=400, height=800) as browser:
        browser.open(written.folder / "report.html")
        assert browser.run("return [innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [400, True]
        outside = """return Array.from(document.querySelectorAll('h1, h2, .card, .controls *, figure, .scroll'))
            .filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"""
        assert browser.run(outside) == []
        browser.open(written.folder / "report.html", "#/run/arm-0003/1")
        box = (
            "const b = document.getElementById('detail').getBoundingClientRect(); return [b.left >= 0, b.right <= 400]"
        )
        assert browser.run(box) == [True, True]
