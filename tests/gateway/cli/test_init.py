import pytest

from gateway.cli.main import main


def test_the_starter_file_passes_the_check(tmp_path, capsys):
    file = tmp_path / "plant.yaml"
    assert main(["init", str(file)]) == 0
    assert main(["check", str(file)]) == 0
    assert "gateway plant1: 1 device" in capsys.readouterr().out
    assert "headgate check plant.yaml" in file.read_text()


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
