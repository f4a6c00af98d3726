"""`headgate browse` on servers of two makers: the tree, the file it writes, and that file running."""

import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest
import yaml

from gateway.cli.main import main

BOTH = ["node-opcua", "asyncua"]
MEASURED = """
import resource, sys
from gateway.cli.main import main
code = main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MiB", file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def headgate(tmp_path, monkeypatch, capsys):
    """Run a command in tmp_path; gives what it said, after a look at its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=(0,)):
        capsys.readouterr()
        found = main([*map(str, arguments)])
        said = capsys.readouterr()
        assert found in code, (found, said.out[-2000:], said.err[-2000:])
        return said

    return run


def rows(done):
    return {row["path"]: row for row in json.loads(done.out)}


@pytest.mark.parametrize("kind", BOTH)
def test_the_tree_names_types_units_values_and_enumerations(opcua_shared, headgate, kind):
    url = opcua_shared(kind, tree=[2, 3]).url
    found = rows(headgate("browse", url, "--security", "none", "--details", "--values", "--json"))
    assert found["/Server"]["address"] == "i=2253"
    assert not any(path.startswith("/Server/") for path in found)
    assert not any(path.startswith("/Plant/analog/") for path in found)
    level = found["/Plant/Tree/F1/L2"]
    assert level["address"] == "nsu=urn:headgate:tests:plant;s=Tree.F1.L2"
    assert (level["tag"], level["type"], level["value"], level["quality"]) == ("Plant/Tree/F1/L2", "float64", 2, "good")
    assert (found["/Plant/analog"]["unit"], found["/Plant/analog"]["value"]) == ("°C", 100)
    assert found["/Plant/type.Mode"]["choices"] == ["Off", "Auto", "Hand"]
    assert (found["/Plant/type.Int16.array"]["list"], found["/Plant/bad"]["quality"]) == (True, "bad:BadSensorFailure")
    assert found["/Plant/type.structure"]["value"]["Steps"] == ["mix", "heat"]
    assert ("writable" in found["/Plant/write.Int16"], "writable" in found["/Plant/readonly"]) == (True, False)
    some = headgate("browse", url, "--security", "none", "--start", "/Plant/Tree", "--depth", 1).out.splitlines()
    assert [line.split()[0] for line in some] == ["Tree/", "F0/", "F1/"]


@pytest.mark.parametrize("kind", BOTH)
def test_the_mapping_that_browse_writes_runs_as_it_is_and_gives_values(
    opcua_shared, headgate, start, wait_for, tmp_path, kind
):
    url, out = opcua_shared(kind, tree=[2, 3]).url, tmp_path / "out.yaml"
    headgate("browse", url, "--security", "none", "--mapping", out)
    assert "no mistakes" in headgate("check", out).err
    written = yaml.safe_load(out.read_text())["devices"]["plc"]["tags"]
    assert len(written) > 100
    assert not any("write" in tag for tag in written.values())
    assert written["Plant/analog"] == {
        "address": "nsu=urn:headgate:tests:plant;s=analog", "type": "float64", "unit": "°C", "source": "/Plant/analog",
    }  # fmt: skip
    start(sys.executable, "-m", "gateway", "run", str(out), name="gateway", cwd=tmp_path)
    wait_for(lambda: main(["status", str(out)]) == 0, "the gateway to run", 30)
    seen = {}

    def all_came():
        seen.update({row["tag"]: row for row in json.loads(headgate("read", out, "--json", code=(0, 1)).out or "[]")})
        return seen and all(row["quality"] != "bad:startup" for row in seen.values())

    wait_for(all_came, "a sample of each tag", 40)
    assert set(seen) == set(written)
    not_good = {name: row["quality"] for name, row in seen.items() if row["quality"] != "good"}
    assert set(not_good) <= {
        "Plant/bad",
        "Plant/uncertain",
        "Plant/type.beyond",
        "Plant/write.beyond",
        "Plant/type.null",
    }
    assert (seen["Plant/analog"]["value"], seen["Plant/analog"]["unit"]) == (100, "°C")
    assert (seen["Plant/type.Mode"]["value"], seen["Plant/Tree/F1/L2"]["value"]) == ("Auto", 2)


@pytest.mark.parametrize("kind", BOTH)
def test_wildcards_of_a_mapping_become_tags_with_values(opcua_shared, headgate, tmp_path, kind):
    url, out = opcua_shared(kind, tree=[2, 3]).url, tmp_path / "wild.yaml"
    tags = {"leaf": "/Plant/Tree/F?/L1", "all": "/Plant/Tree/**", "none": "/Plant/Nothing/*"}
    device = {"driver": "opcua", "url": url, "security": "none", "tags": tags}
    out.write_text(yaml.safe_dump({"gateway": "g", "devices": {"plc": device}}))
    seen = {row["tag"]: row["value"] for row in json.loads(headgate("read", out, "--json", code=[1]).out)}
    assert seen == {
        "leaf/F0": 1, "leaf/F1": 1, "none": None, **{f"all/F{f}/L{leaf}": leaf for f in (0, 1) for leaf in (0, 1, 2)},
    }  # fmt: skip


def test_five_thousand_nodes_come_in_pages_within_the_servers_limits_with_a_progress_bar(opcua_servers, tmp_path):
    names = ("maxNodesPerBrowse", "maxNodesPerRead", "maxNodesPerTranslateBrowsePathsToNodeIds")
    server = opcua_servers("node-opcua", tree=[3, 1700], types=False, limits=dict.fromkeys(names, 200))
    out, near, far = tmp_path / "out.yaml", *pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "browse", server.url, "--security", "none", "--mapping", str(out)],
        cwd=tmp_path, stderr=far, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(far)
    shown = b""
    try:
        while data := os.read(near, 65536):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(near)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert "5100 tags" in said
    assert re.search(rb"browsing, [\d,]+ found +\d+% \[#* *\] [\d,]+ nodes/s", shown)
    assert len(yaml.load(out.read_text(), Loader=yaml.CSafeLoader)["devices"]["plc"]["tags"]) == 5100


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", BOTH)
def test_fifty_thousand_nodes_are_browsed_in_seconds_with_little_memory(opcua_servers, tmp_path, kind, capsys):
    server = opcua_servers(kind, tree=[50, 1000], types=False)
    for extra in ([], ["--mapping", str(tmp_path / "out.yaml")]):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "browse", server.url, "--security", "none", *extra],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        took_s = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        peak = int(re.search(r"peak (\d+) MiB", done.stderr)[1])
        with capsys.disabled():
            print(f"\n{kind}, 50,000 variables, {'tree' if not extra else 'mapping'}: {took_s:.1f} s, peak {peak} MiB")
        assert peak < 400
    assert (tmp_path / "out.yaml").read_text().count("address:") == 50_000


def test_an_unknown_server_is_trusted_by_its_fingerprint_alone(opcua_servers, headgate, tmp_path):
    server = opcua_servers("asyncua", policies=["Basic256Sha256"], modes=["SignAndEncrypt"], types=False, tree=[1, 2])
    refused = headgate("browse", server.url, code=[1]).err
    (pending,) = (tmp_path / "headgate-data" / "pki" / "pending").glob("*.der")
    assert pending.stem[:12] in refused.lower()
    headgate("browse", server.url, "--trust", "00" * 20, code=[1])
    out = tmp_path / "out.yaml"
    headgate("browse", server.url, "--trust", pending.stem, "--mapping", out)
    assert "L1" in headgate("browse", server.url).out
    seen = json.loads(headgate("read", out, "--json").out)
    assert {row["tag"]: row["value"] for row in seen} == {"Plant/Tree/F0/L0": 0, "Plant/Tree/F0/L1": 1}
