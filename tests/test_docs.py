"""What people read, against what is there: links, commands, paths, and the files that tools and GitHub look for."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pgp_core.cli import build_parser
from pgp_core.restorers.finding import FAMILIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    + [*(ROOT / "docs").glob("*.md"), *(ROOT / "web" / "docs").glob("*.md"), *(ROOT / "reproduce").rglob("*.md")]
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("tests", "pgp_core", "nodes", "docs", "reproduce", "workflows", "web", "subgraphs", ".github")

#: Behind a path, or behind variables that are set for it; or the module, which is the same.
COMMAND = re.compile(r"(?:^\s*(?:\w+=\S+\s+)*(?:\S*/)?pgp-diffsr|-m pgp_core\.cli)\s+(.*)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Without code blocks, in which brackets are no links."""
    return FENCE.sub("", text(page))


def anchors(page: Path) -> set[str]:
    """Names that GitHub gives a page's headings."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} (.+?) *$", prose(page), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def test_headings_are_named_as_github_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A, b: `--dry-run`\n## Core's [own](x.md) loader\n## Same\n## Same\n```\n# none\n```\n", "utf-8")
    page = page.resolve()
    assert anchors(page) == {"a-b---dry-run", "cores-own-loader", "same", "same-1"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or not file.is_relative_to(ROOT):
            wrong.append(target)
        elif anchor and anchor not in anchors(file):
            wrong.append(f"{target}: has {sorted(anchors(file))}")
    assert not wrong


def commands(page: Path) -> Iterator[str]:
    """What follows ``pgp-diffsr`` on every command line in a page's code blocks."""
    for language, block in FENCE.findall(text(page)):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console" and not line.startswith("$ "):
                continue
            for part in re.split(r"&&|\|\|?|;", line.removeprefix("$ ")):
                if found := COMMAND.search(part):
                    yield found[1]


COMMANDS = [(page, command) for page in PAGES for command in commands(page)]


def test_the_commands_are_found() -> None:
    counts = {name(page): sum(p == page for p, _ in COMMANDS) for page in PAGES}
    assert counts["README.md"] >= 4 and counts["docs/training.md"] >= 10 and counts["docs/plans.md"] >= 5


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda x: name(x) if isinstance(x, Path) else x[:40])
def test_commands_are_understood(page: Path, command: str) -> None:
    build_parser().parse_args(shlex.split(command, comments=True))


def first_words(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """What may stand first: subcommands, or the choices of a first argument, which lead no further."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
        if not action.option_strings:
            return dict.fromkeys(map(str, action.choices or ()), argparse.ArgumentParser())
    return {}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_sentences_exist(page: Path) -> None:
    """Their subcommands and options; values may be left out there, and dots stand for whatever."""
    for command in re.findall(r"`pgp-diffsr ([^`]+)`", prose(page).replace("\n", " ")):
        options = {word for word in command.split() if word.startswith("-")}
        words = [word for word in command.split() if not word.startswith("-")]
        parser, known = build_parser(), set[str]()
        while True:
            known |= {option for action in parser._actions for option in action.option_strings}
            possible = first_words(parser)
            if not possible or not words or not words[0].islower():
                break
            assert words[0] in possible, command
            parser = possible[words.pop(0)]
        assert options <= known, command


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_in_sentences_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("it names what was there then")
    for path in re.findall(r"`([\w./-]+)`", prose(page)):
        if path.split("/")[0] in FOLDERS and "/" in path:
            assert (ROOT / path).exists(), path


def test_the_map_shows_what_is_there() -> None:
    page = ROOT / "docs" / "architecture.md"
    part = text(page).split("## Where to look\n")[1].split("\n## ")[0]
    rows = [re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| (`.+?) \|", part, re.M)]
    shown = {path.rstrip("/") for row in rows for path in row}
    assert len(shown) >= 30
    assert not [path for path in shown if not (ROOT / path).exists()]
    rooms = {p for p in (ROOT / "pgp_core").iterdir() if (p / "__init__.py").exists() or p.suffix == ".py"}
    missing = {f"pgp_core/{p.name}" for p in rooms if p.name != "__init__.py"} - shown
    assert not missing, "rooms that the map does not show"


def test_the_map_names_files_that_are_there() -> None:
    page = ROOT / "docs" / "architecture.md"
    part = text(page).split("## Where to look\n")[1].split("\n## ")[0]
    for places, says in re.findall(r"^\| (`.+?) \| (.+) \|$", part, re.M):
        folders = [ROOT, *(ROOT / p for p in re.findall(r"`([^`]+)`", places))]
        for path in re.findall(r"`([\w/]+(?:\.py|/))`", says):
            assert any((folder / path).exists() for folder in folders), f"{places}: {path}"


def test_every_node_and_workflow_has_its_row() -> None:
    page = text(ROOT / "docs" / "nodes.md")
    for file in (ROOT / "web" / "docs").glob("*.md"):
        assert f"../web/docs/{file.name}" in page
    for file in (ROOT / "workflows").glob("*.json"):
        assert f"| `{file.stem}` |" in page


def test_every_family_of_restorers_has_its_row() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \|", text(ROOT / "docs" / "models.md"), re.M)
    assert {family.title for family in FAMILIES} <= set(rows)


def test_the_readme_s_test_command_is_where_tools_look_for_it() -> None:
    after = text(ROOT / "README.md").split("<!-- test command -->\n")
    assert len(after) == 2
    assert re.match(r"```bash\npython3 -m venv \.venv && .*pytest -c tests/pytest\.ini -n 2 tests\n```\n", after[1])


def test_pictures_of_the_pages_are_small() -> None:
    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
            limit = 150_000 if target.endswith(".svg") else 450_000
            assert (page.parent / target).stat().st_size < limit, target


@pytest.mark.parametrize("which", ["before", "after"])
def test_the_drawings_say_what_the_page_says(which: str) -> None:
    drawing = ElementTree.parse(ROOT / "docs" / f"imports-{which}.svg").getroot()
    page = text(ROOT / "docs" / "architecture.md")
    (row,) = re.findall(rf"^\| {which} \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.M)
    rooms, floors, arrows, up = row
    words = f"{rooms} rooms, {floors} floors, {arrows} arrows, {up} going up"
    assert any(words in (t.text or "") for t in drawing.iter("{http://www.w3.org/2000/svg}text"))
    if which == "after":
        assert up == "0"


def _yaml(path: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(text(ROOT / path))


def test_the_citation_is_that_of_this_release() -> None:
    cff = _yaml("CITATION.cff")
    assert cff["cff-version"] == "1.2.0" and cff["type"] == "software"
    assert {"message", "title", "authors"} <= set(cff)
    assert str(cff["version"]) == PROJECT["project"]["version"]
    assert cff["repository-code"] == PROJECT["project"]["urls"]["Repository"]
    for reference in cff["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert all(author["family-names"] and author["given-names"] for author in reference["authors"])
    assert any("2512.02681" in reference.get("url", "") for reference in cff["references"])


def test_pre_commit_s_ruff_is_the_project_s() -> None:
    (pin,) = (d for d in PROJECT["project"]["optional-dependencies"]["test"] if d.startswith("ruff"))
    (repo,) = (r for r in _yaml(".pre-commit-config.yaml")["repos"] if "ruff" in r["repo"])
    assert re.fullmatch(r"ruff==(.+)\.\*", pin)
    assert repo["rev"].startswith("v" + pin.removeprefix("ruff==").removesuffix("*"))
    assert [hook["id"] for hook in repo["hooks"]] == ["ruff-check", "ruff-format"]


def test_ci_runs_what_the_project_promises() -> None:
    ci = _yaml(".github/workflows/tests.yml")
    matrix = ci["jobs"]["tests"]["strategy"]["matrix"]
    assert PROJECT["project"]["requires-python"] == f">={matrix['python'][0]}"
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]
    assert matrix["comfyui"] == ["without", "with"]
    assert PROJECT["tool"]["comfy"]["requires-comfyui"] == ">=" + ci["env"]["COMFYUI_TAG"].removeprefix("v")
    steps = "\n".join(step.get("run", "") for step in ci["jobs"]["tests"]["steps"])
    assert "pytest -c tests/pytest.ini" in steps and "requirements.txt" in steps
    style = {step.get("run") for step in ci["jobs"]["style"]["steps"]}
    assert {"ruff check .", "ruff format --check .", "mypy"} <= style


def test_issue_forms_are_such_that_github_shows_them() -> None:
    files = [p for p in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if p.stem != "config"]
    assert {p.stem for p in files} == {"bug", "model"}
    for file in files:
        form = _yaml(file.relative_to(ROOT).as_posix())
        assert {"name", "description", "body"} <= set(form)
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) >= 3
        for field in form["body"]:
            assert field["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
            assert "label" in field["attributes"] or field["type"] == "markdown"
            if field["type"] in ("dropdown", "checkboxes"):
                assert field["attributes"]["options"]


def test_dependabot_watches_pip_and_actions() -> None:
    updates = _yaml(".github/dependabot.yml")["updates"]
    assert {u["package-ecosystem"] for u in updates} == {"pip", "github-actions"}


def test_workflows_named_in_the_readme_are_shipped() -> None:
    part = text(ROOT / "README.md").split("## In ComfyUI")[1].split("\n## ")[0]
    named = re.findall(r"^\| `([\w-]+)` \|", part, re.M)
    assert len(named) == 3
    for workflow in named:
        assert json.loads(text(ROOT / "workflows" / f"{workflow}.json"))["nodes"]
