"""The console command: what it prints, its exit codes, and errors that are one line."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from vidhash_lab import about
from vidhash_lab.command import COMMANDS, main


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(words, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_that_names_it(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: vidhash {name}" in capsys.readouterr().out


def test_a_command_that_is_none_is_an_error_that_names_the_nearest(capsys):
    assert main(["exract", "films"]) == 2
    assert "Did you mean `extract`?" in capsys.readouterr().err


@pytest.fixture
def failing(tmp_path):
    path = tmp_path / "failing.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")], metadata=kernel), path)
    return str(path)


def errors(folder, failing):
    return {
        ("data", f"{folder}/none"): "no such file or folder",
        ("run", f"{folder}/none.ipynb"): "no such file or directory",
        ("run", failing, "-p", "bits", "16"): "no parameter ['bits']",
        ("run", failing, "--folder", f"{folder}/out"): "cell 1 raised ZeroDivisionError: division",
        ("extract", f"{folder}/none", f"{folder}/out.h5"): "none",
        ("cache", "--clean", "thesis"): "no entry thesis",
    }


def test_an_error_is_one_line_without_a_traceback(tmp_path, failing, capsys):
    for words, told in errors(tmp_path, failing).items():
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert code == 1 and told in printed.err + printed.out, words
        assert "Traceback" not in printed.err + printed.out, words


def test_a_traceback_is_for_those_who_ask(failing, monkeypatch):
    monkeypatch.setenv("VIDHASH_LAB_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no parameter"):
        main(["run", failing, "-p", "bits", "16"])


def test_about_tells_versions_device_threads_and_cache(capsys, cache_folder):
    assert main(["about"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("torch 2.", "threads", "precision", "numpy 2."))
    assert str(cache_folder) in about()["cache"]
    assert "<td>" in about()._repr_html_()
