"""A real JupyterLab on this machine and Debian's chromium, driven by playwright."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

WIDGET = "() => window.jupyterapp.shell.currentWidget"
CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox --headless=new --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage"
).split()
NOTIFICATIONS = '{"fetchNews": "false", "checkForUpdates": false}'


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """Start JupyterLab with fresh settings -> its address and the folder it serves."""
    if not CHROMIUM.exists():
        pytest.skip(f"BROWSER TESTS SKIPPED: no {CHROMIUM} (apt-get install chromium)")
    served, settings = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("settings")
    news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(NOTIFICATIONS)
    fresh = {
        "JUPYTER_CONFIG_DIR": str(tmp_path_factory.mktemp("config")),
        "JUPYTER_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path_factory.mktemp("workspaces")),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.allow_root=True",
        f"--ServerApp.root_dir={served}", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    log = (served / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env={**os.environ, **fresh}, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/api/status", server)
        yield address, served
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@pytest.fixture
def page(lab, open_browser):
    """Open a fresh browser page that may talk to the lab alone."""
    with open_browser() as browser:
        yield browser.pages[0]


@pytest.fixture(scope="session")
def open_browser(tmp_path_factory):
    """Return a function that opens chromium with a fresh profile, as a context manager."""
    if not CHROMIUM.exists():
        pytest.skip(f"BROWSER TESTS SKIPPED: no {CHROMIUM} (apt-get install chromium)")

    @contextmanager
    def open_one(**options):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("profile"),
                executable_path=CHROMIUM,
                headless=True,
                viewport={"width": 1400, "height": 1000},
                args=QUIET,
                **options,
            )
            yield browser
            browser.close()

    return open_one


@pytest.fixture
def run_all_cells(lab, page):
    """Return a function that opens a notebook under a name and starts all its cells."""
    address, served = lab

    def run(notebook, name):
        nbformat.write(notebook, served / f"{name}.ipynb")
        url = f"{address}/lab/workspaces/{name}/tree/{name}.ipynb"
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook", timeout=60_000)
        page.evaluate(
            f"async () => {{ const widget = ({WIDGET})(); await widget.context.ready; "
            "await widget.sessionContext.ready; }"
        )
        # Run before the kernel is idle and a dialog asks which kernel to take, and blocks.
        idle = f"() => ({WIDGET})()?.sessionContext?.session?.kernel?.status === 'idle'"
        page.wait_for_function(idle, timeout=60_000)
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")

    return run


def _wait_for(url, server):
    for _ in range(240):
        try:
            return urllib.request.urlopen(url)
        except OSError:
            assert server.poll() is None, "JupyterLab did not start; see lab.log"
            time.sleep(0.25)
    raise TimeoutError(url)
