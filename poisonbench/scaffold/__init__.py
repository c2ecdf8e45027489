"""A complete plugin project from one word: ``poisonbench new defense my_idea``.

The project installs with ``pip install -e .``, works at once, and carries a test of its contract.
"""

from __future__ import annotations

import importlib.util
import keyword
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from poisonbench import registry
from poisonbench.errors import UserError
from poisonbench.registry import NAMING, Kind, valid_name

TEMPLATES = files("poisonbench.scaffold").joinpath("templates")


def create(kind: Kind, name: str, parent: Path) -> Path:
    """Write a plugin project into ``parent``.

    Args:
        kind: what the plugin is.
        name: how the command line will call it; also the name of its Python package.
        parent: the folder that receives the project.

    Returns:
        The project's folder, ``parent`` / name with dashes.

    Raises:
        UserError: for a name that cannot be used or is taken, or a folder that exists or cannot be written.
    """
    _check_name(kind, name)
    project = parent / name.replace("_", "-")
    if project.exists():
        raise UserError(f"{project} already exists; choose another name or move it away")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{project.name}-", dir=parent) as draft:
            whole = Path(draft) / project.name
            _write(whole, kind, name)
            whole.rename(project)
    except OSError as error:
        raise UserError(f"cannot write {project}: {error.strerror or error}; choose another folder") from None
    return project


def class_name(kind: Kind, name: str) -> str:
    """The plugin's class: ``my_idea`` becomes ``MyIdeaDefense``, and ``my_defense`` ``MyDefense``."""
    words, suffix = "".join(part.capitalize() for part in name.split("_")), kind.capitalize()
    return words if words.endswith(suffix) and words != suffix else words + suffix


def _check_name(kind: Kind, name: str) -> None:
    if not valid_name(name) or keyword.iskeyword(name):
        raise UserError(f"'{name}' cannot name a plugin: {NAMING}, and no word of Python's own")
    if name in (registry.attacks() if kind == "attack" else registry.defenses()).names():
        raise UserError(f"{kind} '{name}' is already registered; choose another name")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise UserError(f"'{name}' is already the name of a Python module; choose another name")


def _write(project: Path, kind: Kind, name: str) -> None:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    words = {"kind": kind, "name": name, "project": project.name, "title": name.replace("_", " ")}
    for path, template in _contents(kind, name).items():
        text = TEMPLATES.joinpath(template).read_text(encoding="utf-8")
        file = project / path
        file.parent.mkdir(parents=True, exist_ok=True)
        rendered = environment.from_string(text).render(words, class_name=class_name(kind, name))
        file.write_text(rendered, encoding="utf-8")


def _contents(kind: Kind, name: str) -> dict[str, str]:
    """Every file of a project, and the template that it is made from."""
    return {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"src/{name}/__init__.py": f"{kind}.py.j2",
        f"tests/test_{name}.py": "test_plugin.py.j2",
    }
