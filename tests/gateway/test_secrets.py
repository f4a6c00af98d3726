"""Secrets by reference, and that they never show."""

from __future__ import annotations

import copy
import logging
import os
import pickle

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from gateway.secrets import BASE, MASK, Secret, Text, is_reference, resolve

WORD = "correct horse"


class Login(BaseModel):
    username: Text | None = None
    password: Secret | None = None


@pytest.fixture
def kept(tmp_path):
    """A file that holds the secret, readable by its owner alone."""
    path = tmp_path / "cloud.password"
    path.write_text(f"{WORD}\n")
    path.chmod(0o600)
    return path


def test_a_secret_shows_itself_nowhere(kept, caplog):
    secret = resolve("${file:cloud.password}", kept.parent)
    logging.getLogger("headgate.test").warning("%s %r", secret, secret)
    model = Login(password=secret)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", f"{[secret]}", caplog.text, repr(model)]
    shown += [model.model_dump_json(), str(model.model_dump(mode="json"))]
    assert not [text for text in shown if WORD in text]
    assert str(secret) == MASK
    assert repr(secret) == "Secret(${file:cloud.password})"
    assert secret.reveal() == WORD


@pytest.mark.parametrize("write", [pickle.dumps, copy.copy, copy.deepcopy, orjson.dumps])
def test_a_secret_is_neither_pickled_nor_copied_nor_dumped(write):
    with pytest.raises(TypeError) as raised:
        write(Secret(WORD))
    assert WORD not in str(raised.value)


def test_secrets_with_the_same_text_are_equal():
    assert Secret(WORD) == Secret(WORD, source="${env:X}")
    assert hash(Secret(WORD)) == hash(Secret(WORD))
    assert Secret(WORD) != Secret("other")
    assert Secret(WORD) != WORD


def test_the_environment_gives_a_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUD_PASSWORD", WORD)
    assert resolve("${env:CLOUD_PASSWORD}", tmp_path).reveal() == WORD


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_or_empty_variable_is_refused(monkeypatch, tmp_path, value):
    monkeypatch.delenv("CLOUD_PASSWORD", raising=False)
    if value is not None:
        monkeypatch.setenv("CLOUD_PASSWORD", value)
    with pytest.raises(ValueError, match=r"CLOUD_PASSWORD is not set, or empty\. Set it for the service"):
        resolve("${env:CLOUD_PASSWORD}", tmp_path)


def test_an_absolute_file_gives_a_secret(kept, tmp_path):
    assert resolve(f"${{file:{kept}}}", tmp_path / "elsewhere").reveal() == WORD


@pytest.mark.parametrize(("data", "text"), [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a ")])
def test_one_line_end_is_taken_off_and_nothing_else(tmp_path, data, text):
    (tmp_path / "s").write_bytes(data)
    assert resolve("${file:s}", tmp_path).reveal() == text


def test_systemd_gives_a_credential(monkeypatch, tmp_path, kept):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(kept.parent))
    assert resolve("${credential:cloud.password}", tmp_path).reveal() == WORD


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("${file:nothing}", "nothing: no such file or directory. Make the file, readable for headgate"),
        ("${file:.}", "is not a file. Name a file that holds the secret"),
        ("${file:empty}", "empty is empty. Write the secret into it"),
        ("${file:latin}", "latin is not UTF-8 text. Save it as UTF-8"),
        ("${file:large}", "large is larger than 64 KiB"),
        ("${file:fifo}", "fifo is not a file"),
        ("${credential:name}", r"credentials exist only under systemd.*LoadCredential=name"),
        ("${vault:name}", "a reference is written"),
        ("${env:}", "a reference is written"),
        ("x${env:A}", "a reference is written"),
    ],
)
def test_what_cannot_be_resolved_says_what_is_missing_and_the_cure(monkeypatch, tmp_path, reference, match):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "latin").write_bytes(b"gr\xfcn")
    (tmp_path / "large").write_bytes(b"x" * (64 * 1024 + 1))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match=match):
        resolve(reference, tmp_path)


def test_a_path_is_no_credential(monkeypatch, tmp_path):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ValueError, match="is not the name of a credential"):
        resolve("${credential:../../etc/shadow}", tmp_path)


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o600, ""), (0o640, ""), (0o644, "can be read by everybody"), (0o602, "can be changed"), (0o660, "changed")],
)
def test_a_file_that_strangers_can_read_or_change_raises_a_caution(kept, mode, said):
    kept.chmod(mode)
    caution = resolve("${file:cloud.password}", kept.parent).caution
    assert bool(caution) == bool(said)
    assert said in caution
    assert not caution or f"{kept}" in caution


def test_a_field_takes_a_reference_relative_to_the_base(kept):
    login = Login.model_validate({"password": "${file:cloud.password}"}, context={BASE: kept.parent})
    assert login.password == Secret(WORD)


@pytest.mark.parametrize("value", [WORD, 12345, None.__class__, ["x"]])
def test_a_field_refuses_plain_text_and_does_not_quote_it(value):
    with pytest.raises(ValidationError) as raised:
        Login.model_validate({"password": value})
    (error,) = raised.value.errors()
    assert "a secret in plain text" in error["msg"]
    assert "${file:/path}" in error["msg"]
    assert WORD not in error["msg"]


def test_a_text_field_takes_plain_text_and_references(monkeypatch):
    monkeypatch.setenv("CLOUD_USER", "plant7")
    assert Login(username="plant7").username == "plant7"
    assert Login(username="${env:CLOUD_USER}").username == "plant7"
    with pytest.raises(ValidationError, match="Put it in quotes"):
        Login(username=7)


def test_references_are_told_from_text():
    assert is_reference("${env:A}")
    assert is_reference("${nonsense")
    assert not is_reference("plain $ text")
