"""The book, page by page in chromium: it needs no network, and everybody can read and walk it."""

import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from filelock import FileLock

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "build" / "book"
RULES = [
    "image-alt", "link-name", "button-name", "select-name", "label",
    "scrollable-region-focusable", "html-has-lang", "document-title", "nested-interactive",
]  # fmt: skip
# Marks one text of each look: a page of code has thousands of words in a dozen colours.
MARK_SAMPLES = """() => {
    const seen = new Set();
    const behind = (each) => {
        for (let at = each; at; at = at.parentElement) {
            const paper = getComputedStyle(at).backgroundColor;
            if (!/, 0\\)$/.test(paper)) return paper;
        }
    };
    for (const each of document.body.querySelectorAll('*')) {
        each.removeAttribute('data-sample');
        if (![...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
        if (!each.checkVisibility({visibilityProperty: true})) continue;
        const style = getComputedStyle(each);
        const size = [style.fontSize, style.fontWeight, style.opacity];
        const look = [each.localName, style.color, behind(each), ...size].join();
        if (!seen.has(look)) each.setAttribute('data-sample', '');
        seen.add(look);
    }
}"""
STILL = "*, *::before, *::after { transition: none !important; animation: none !important }"
# What the tab key should reach and would not: shown, made to be used, and out of its order.
UNREACHABLE = """() => [...document.querySelectorAll('a[href], button, summary, select, input')]
    .filter((each) => each.checkVisibility({visibilityProperty: true}) && !each.disabled)
    .filter((each) => each.tabIndex < 0).map((each) => each.outerHTML.slice(0, 120))"""
FOCUSED = "() => document.activeElement.outerHTML.slice(0, 120)"


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """Build the book, once for all workers of a run -> its folder."""
    here = tmp_path_factory.getbasetemp()  # of this worker; all workers of a run share its parent
    built = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "book-is-built"
    with FileLock(f"{built}.lock"):
        if not built.exists():
            command = [sys.executable, str(ROOT / "book" / "build.py"), str(BOOK)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            assert done.returncode == 0, done.stdout + done.stderr
            built.touch()
    return BOOK


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture
def address(book):
    """Serve the book on this machine alone -> its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=book))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def pages_of(book):
    pages = (path.relative_to(book) for path in book.rglob("*.html"))
    return sorted(str(path) for path in pages if path.parts[0] != "_static")


def problems(page, rules, within=None):
    """Let axe judge a page, or what a selector chooses -> a line for each thing that is wrong."""
    options = {"runOnly": rules, "resultTypes": ["violations"], "preload": False, "iframes": False}
    found = page.evaluate("([at, options]) => axe.run(at ?? document, options)", [within, options])
    return [
        f"{each['id']}: {n['html'][:160]}" for each in found["violations"] for n in each["nodes"]
    ]


def pale_text(page, theme):
    """List text below WCAG AA in a theme. Of texts that look the same, axe measures one."""
    page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", theme)
    page.evaluate(MARK_SAMPLES)
    return [f"{theme}: {each}" for each in problems(page, ["color-contrast"], "[data-sample]")]


def test_the_book_is_whole_and_small(book):
    pages = pages_of(book)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}.html" in pages
    for task in ("features", "videos", "method", "paper", "cluster", "serve"):
        assert f"howto/{task}.html" in pages
    assert {"index.html", "course.html", "leaderboard.html", "checked.html"} < set(pages)
    assert sum(path.stat().st_size for path in book.rglob("*") if path.is_file()) < 60e6


def test_no_link_is_dead_and_no_address_but_links_leads_out(book):
    trees = {
        name: BeautifulSoup((book / name).read_text(), "html.parser") for name in pages_of(book)
    }
    names = {page: {e["id"] for e in tree.select("[id]")} for page, tree in trees.items()}
    dead = []
    for page, tree in trees.items():
        for element in tree.select("[href], [src]"):
            target = element.get("href", element.get("src"))
            if target.startswith("data:"):
                continue
            if target.startswith(("http:", "https:")):
                assert element.name == "a", f"{page} loads {target}"
                continue
            path, fragment = urldefrag(unquote(urljoin(page, target)))
            exists = path in trees or (book / path.partition("?")[0]).is_file()
            if not exists or (fragment and path in trees and fragment not in names[path]):
                dead.append((page, target))
    assert not dead


def test_every_page_asks_nobody_logs_nothing_and_can_be_read_in_light_and_dark(
    address, book, open_browser
):
    wrong = []
    with open_browser() as browser:
        page = browser.pages[0]
        page.add_init_script(Axe().axe_script)
        page.on("request", lambda r: r.url.startswith((address, "data:")) or wrong.append(r.url))
        page.on("response", lambda r: r.ok or r.status == 304 or wrong.append((r.status, r.url)))
        page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        for name in pages_of(book):
            page.goto(address + name, wait_until="load")
            page.add_style_tag(content=STILL)  # a colour that fades in would be judged half-way
            found = [*problems(page, RULES), *page.evaluate(UNREACHABLE)]
            found += [*pale_text(page, "light"), *pale_text(page, "dark")]
            wrong += [(name, each) for each in found]
    assert not wrong, "\n".join(map(str, wrong[:40]))


def test_keys_alone_open_a_notebook_sort_the_leaderboard_and_show_solutions(address, open_browser):
    def tab_to(words, limit=80):
        for _ in range(limit):
            page.keyboard.press("Tab")
            if words in page.evaluate(FOCUSED):
                return
        raise AssertionError(f"{limit} tabs do not reach {words}")

    with open_browser() as browser:
        page = browser.pages[0]
        page.goto(f"{address}index.html")
        tab_to('href="course.html"')
        page.keyboard.press("Enter")
        page.wait_for_url("**/course.html")
        tab_to("00_start_here.html")
        page.keyboard.press("Enter")
        page.wait_for_url("**/notebooks/00_start_here.html")
        assert not page.get_by_role("heading", name="1. Sixteen bits").is_visible()
        page.locator("details.solutions > summary").focus()
        page.keyboard.press("Enter")
        assert page.get_by_role("heading", name="1. Sixteen bits").is_visible()

        page.goto(f"{address}leaderboard.html")
        tab_to(">mAP@20</button>")
        page.keyboard.press("Enter")
        column = page.locator("#leaderboard tbody tr td:nth-child(6)").all_inner_texts()
        numbers = [float(text) for text in column if text]
        assert numbers == sorted(numbers, reverse=True) and len(numbers) > 50
        assert all(column[: len(numbers)])  # what is missing comes last
        page.get_by_label("data set").select_option("UCF101")
        shown = page.locator("#leaderboard tbody tr:visible td:nth-child(3)").all_inner_texts()
        assert set(shown) == {"UCF101"}


def test_the_search_finds_words_without_a_network(address, open_browser, book):
    with open_browser(offline=True) as browser:
        page = browser.pages[0]
        page.goto(f"{(book / 'search.html').as_uri()}?q=permutations")
        page.locator("#search-results li a").first.wait_for(timeout=10_000)
        page.goto(f"{(book / 'search.html').as_uri()}?q=near_duplicates")
        page.locator("#search-results li a").first.wait_for(timeout=10_000)
