"""Who checks a file, or asks for the schema, does not pay for the library: it takes 25 MB and half a second."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[3] / "drivers" / "opcua" / "sample.yaml"
PROGRAM = """
import contextlib, io, sys
from gateway.cli.main import main
out = io.StringIO()
with contextlib.redirect_stdout(out):
    code = main(sys.argv[1:])
print(code, "opc.tcp" in out.getvalue(), sorted({name.partition(".")[0] for name in sys.modules} & {"asyncua"}))
"""


@pytest.mark.parametrize("words", ["check --plan", "schema"])
def test_a_file_is_checked_without_the_library(words):
    file = [str(SAMPLE)] if words.startswith("check") else []
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words.split(), *file],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PLC_PASSWORD": "x"},
    )
    assert done.returncode == 0, done.stderr
    code, seen, loaded = done.stdout.split(maxsplit=2)
    assert (code, loaded.strip()) == ("0", "[]"), done.stderr
    assert seen == str(words != "schema"), "the devices were looked at"
