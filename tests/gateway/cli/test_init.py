import pytest

from gateway.cli.main import main


def test_the_starter_file_passes_the_check(tmp_path, capsys):
    file = tmp_path / "plant.yaml"
    assert main(["init", str(file)]) == 0
    assert main(["check", str(file)]) == 0
    assert "gateway plant1: 1 device" in capsys.readouterr().out
    assert "headgate check plant.yaml" in file.read_text()


def test_the_starters_broker_passes_the_check_where_its_uplink_goes_elsewhere(tmp_path, capsys):
    file = tmp_path / "plant.yaml"
    assert main(["init", str(file)]) == 0
    text = file.read_text()
    for line in ("broker:", "  listen: mqtt", "  payload:"):
        text = text.replace(f"# {line}", line, 1)
    file.write_text(text)
    assert main(["check", str(file)]) == 0
    assert "is this gateway's own broker" in capsys.readouterr().out
    file.write_text(text.replace("url: mqtt://127.0.0.1:1883", "url: mqtt://127.0.0.1:1884", 1))
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr().out
    assert "broker: mqtt://127.0.0.1:1883" in said
    assert "warning" not in said


def test_a_file_that_is_there_stays_as_it_is(tmp_path, capsys):
    file = tmp_path / "plant.yaml"
    file.write_text("mine")
    assert main(["init", str(file)]) == 1
    assert file.read_text() == "mine"
    assert "stays as it is" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_take_it_is_named(tmp_path, capsys, folder):
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / folder / "plant.yaml")]) == 1
    assert f"{folder}/plant.yaml: cannot be written" in capsys.readouterr().err


def test_what_is_commented_out_goes_too(tmp_path, capsys):
    file = tmp_path / "gateway.yaml"
    assert main(["init", str(file)]) == 0
    text, found, after = file.read_text().partition("  # plc:\n")
    block = "".join(line.replace("# ", "", 1) for line in (found + after).splitlines(keepends=True))
    file.write_text(text + block.replace("# pki: /var/lib/headgate/pki", f"pki: {tmp_path}/pki"))
    assert main(["check", str(file)]) == 0
    assert main(["certificate", str(file), "plc"]) == 0
    assert str(tmp_path / "pki" / "own" / "certificate.der") in capsys.readouterr().out
