"""The house guards itself: style, types, floors, what lies where, and what a wheel carries."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("drivers/**/*.py")])
TOP = {"pyproject.toml", "gateway", "drivers", "mappings", "systemd", "tests", "README.md", "LICENSE", "CHANGELOG.md"}
LONGEST_FILE = 480
LONGEST_FUNCTION = 60


def run(*command):
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        [str(scripts / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("lint-imports", "--no-cache"),
        ("mypy",),
    ],
    ids=lambda command: command[0] + " " + command[-1],
)
@pytest.mark.timeout(300)
def test_the_house_rules_hold(command):
    code, output = run(*command)
    assert code == 0, output


def test_nothing_stands_beside_the_agreed_top_level():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("git is not installed, or this is no checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP


def test_no_file_and_no_function_has_grown_past_its_seam():
    long = []
    for path in SOURCES:
        text = path.read_text()
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert not long


def test_only_the_supervisor_catches_everything():
    caught = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"except (Base)?Exception\b|except:", line) and path.name != "supervisor.py"
    ]
    assert not caught


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("aiomqtt", ("gateway/uplinks/session.py",)),
        ("paho", ("gateway/uplinks/session.py",)),
        ("pymodbus", ("drivers/modbus/",)),
        ("asyncua", ("drivers/opcua/",)),
        ("yaml", ("gateway/mapping/",)),
    ],
)
def test_a_library_stands_behind_one_door(library, rooms):
    outside = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if re.search(rf"^\s*(import|from) {library}\b", path.read_text(), re.MULTILINE)
        and not str(path.relative_to(ROOT)).startswith(rooms)
    ]
    assert not outside


def test_the_wheel_carries_data_entry_points_and_nothing_of_the_tests(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {n.split("/")[0] for n in names} <= {"gateway", "drivers", names[0].split("/")[0], _info(names)}
    assert "gateway/data/systemd/headgate.service" in names
    assert any(n.startswith("gateway/data/mappings/examples/") for n in names)
    assert {f"gateway/data/{p.relative_to(ROOT)}" for p in ROOT.glob("mappings/*/*.yaml")} <= set(names)
    assert "headgate = gateway.cli.main:main" in points
    assert "modbus = drivers.modbus.driver:Driver" in points


def _info(names):
    return next(n.split("/")[0] for n in names if ".dist-info/" in n)


def test_every_dependency_has_an_upper_bound():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    loose = [d for d in project["dependencies"] if "<" not in d.split(";")[0]]
    assert not loose


def test_the_readme_names_every_command_and_starts_with_the_two_that_matter():
    from gateway.cli.main import COMMANDS

    text = (ROOT / "README.md").read_text()
    first = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert first is not None
    commands = [line for line in first[1].splitlines() if line and not line.startswith("#")]
    assert len(commands) == 2
    assert commands[0].endswith("headgate demo")
    assert "pytest" in commands[1]
    missing = [name for name in COMMANDS if f"`headgate {name}" not in text]
    assert not missing
