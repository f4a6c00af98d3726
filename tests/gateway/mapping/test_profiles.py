"""The library of device profiles."""

from __future__ import annotations

import pytest

import gateway
from gateway.mapping.profiles import find_profile, library, profiles


@pytest.fixture
def shelf(tmp_path):
    for name in ("acme/m1", "acme/m2.b", "zeta/x", "examples/boiler"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("tags: {}\n")
    (tmp_path / "acme" / "README.md").touch()
    return tmp_path


def test_profiles_are_listed_without_the_examples(shelf):
    assert profiles(shelf) == ["acme/m1", "acme/m2.b", "zeta/x"]


def test_a_profile_is_found_by_its_name(shelf):
    assert find_profile("acme/m2.b", shelf) == shelf / "acme" / "m2.b.yaml"


@pytest.mark.parametrize("name", ["", "m1", "acme/m1/x", "../m1", "acme/..", "ACME/m1", "acme/m1.yaml/", "/acme/m1"])
def test_what_is_no_name_of_a_profile_is_refused(shelf, name):
    with pytest.raises(ValueError, match=r"is no profile\. Write vendor/model|there is no profile"):
        find_profile(name, shelf)


def test_the_nearest_profile_is_suggested(shelf):
    with pytest.raises(ValueError, match=r"there is no profile 'acme/m3'\. Did you mean 'acme/m1'\?"):
        find_profile("acme/m3", shelf)


def test_the_library_is_package_data_first_and_the_folder_beside_the_package_second(tmp_path, monkeypatch):
    package = tmp_path / "gateway"
    (package / "data" / "mappings").mkdir(parents=True)
    (tmp_path / "mappings").mkdir()
    monkeypatch.setattr(gateway, "__file__", str(package / "__init__.py"))
    assert library() == package / "data" / "mappings"
    (package / "data" / "mappings").rmdir()
    assert library() == tmp_path / "mappings"


def test_the_library_of_this_checkout_exists():
    assert (library() / "examples").is_dir()
