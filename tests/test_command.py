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


@pytest.fixture
def tiny(tmp_path):
    """Write a notebook with parameters that runs at once -> its path."""
    own = "bits = 16\nrate = 0.1\nsizes = {}\nseeds = [0]\nname = 'itq'\nroot = None"
    cells = [new_code_cell(own, metadata={"tags": ["parameters"]}), new_code_cell("bits + 1")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "tiny.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
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


@pytest.mark.parametrize(
    "given, told",
    [
        ("bit 32", "no parameter ['bit']; it has ['bits', 'name',"),
        ("bits many", "bits is 'many', a text; it has 16, a number"),
        ("rate 3e-3", "rate is '3e-3', a text; it has 0.1, a number. Write 0.003, not 3e-3."),
        ("seeds 3", "seeds is 3, a number; it has [0], a list. Write it as -p NAME '[1, 2]'."),
        ("sizes [1]", "sizes is [1], a list; it has {}, a dict"),
        ("name 12", "name is 12, a number; it has 'itq', a text."),
        ("sizes {1", "-p sizes {1: no value can be read"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told_before_the_run(given, told, tiny, capsys):
    assert main(["run", tiny, "-p", *given.split()]) == 1
    printed = capsys.readouterr()
    assert told in printed.err and printed.err.count("\n") == 1 and "Traceback" not in printed.err


def test_values_of_the_notebooks_own_kind_run(tiny, tmp_path, capsys):
    words = "-p rate 1 -p bits 32 -p root here -p seeds [1,2] -p sizes {depth:1} -p name null"
    assert main(["run", tiny, "--folder", str(tmp_path / "out"), *words.split()]) == 0
    assert (tmp_path / "out" / "tiny" / "metrics.json").is_file()


def test_what_is_no_notebook_and_no_film_is_named(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not a notebook")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "one.mp4").write_text("not a film")
    (tmp_path / "none").mkdir()
    out = str(tmp_path / "out.h5")
    for words, told in {
        ("run", "notes.txt"): "is no notebook: their names end in .ipynb",
        ("run", "films"): "films is a folder; for all notebooks in it",
        ("extract", "none", out): "no file ends in",
        ("extract", "notes.txt", out): "no such folder of videos",
        ("extract", "films", out, "--backbone", "digits"): "one.mp4: not a video file",
        ("extract", "films", out, "--backbone", "resnet"): "'torchvision:MODEL'",
    }.items():
        name, path, *others = words
        try:
            code = main([name, str(tmp_path / path), *others])
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert code == 1 and told in printed.err, words
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
