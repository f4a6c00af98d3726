import subprocess
import sys

import pytest

from gateway import __version__
from gateway.cli.main import COMMANDS, main


def modules_after(*arguments):
    """The modules a command line leaves imported, and what it printed."""
    code = (
        f"import sys; from gateway.cli.main import main\ntry:\n    main({list(arguments)!r})\nexcept SystemExit: pass\n"
    )
    code += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()), done.stdout


def test_the_version_is_told_without_importing_anything_heavy():
    modules, output = modules_after("--version")
    assert output.startswith(f"headgate {__version__}\n")
    assert not modules & {"asyncio", "pydantic", "yaml", "orjson", "gateway.config"}


def test_checking_a_modbus_file_imports_no_protocol_library(tmp_path):
    file = tmp_path / "plant.yaml"
    file.write_text("gateway: p\ndevices: {a: {driver: modbus, url: 'tcp://h', tags: {x: holding:1}}}\n")
    modules, output = modules_after("check", str(file))
    assert "gateway p: 1 device" in output
    assert not modules & {"pymodbus", "asyncua", "aiomqtt", "paho"}


def test_running_imports_neither_simulators_nor_other_protocols():
    code = "import sys, gateway.cli.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"pymodbus", "asyncua", "serial", "cryptography", "numpy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: headgate {command}" in capsys.readouterr().out


def test_help_lists_every_command_with_its_sentence(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    lines = output.splitlines()  # a long name has a line of its own
    assert all(any(line.split()[:1] == [command] for line in lines) for command in COMMANDS)


def test_a_terminal_of_another_alphabet_does_not_end_a_command(tmp_path):
    file = tmp_path / "ä.yaml"
    file.write_text("gateway: 'ü…'\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check", str(file)],
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
