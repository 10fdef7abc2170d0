from pathlib import Path

import pytest

from crosseai.client.servers.credentials import TOKEN_VARIABLE, Credentials, read_token
from crosseai.contract import InputError


def test_token_comes_from_the_file_else_from_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-variable")
    assert read_token(None) == "from-variable"
    (tmp_path / "token").write_text("from-file\n")
    assert read_token(tmp_path / "token") == "from-file"


@pytest.mark.parametrize("content", ["", "two words", "a\nb", "\x00", "ümlaut"])
def test_token_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="expected a bearer token"):
        read_token(tmp_path / "token")


def test_an_absent_file_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_token(tmp_path / "absent")
    assert str(refused.value) == f"{tmp_path}/absent: expected a bearer token: No such file or directory"


def test_a_token_is_never_shown_and_never_sent_in_clear() -> None:
    credentials = Credentials(token="s3cret")  # noqa: S106 - of nobody
    assert "s3cret" not in repr(credentials)
    assert credentials.headers == {"authorization": "Bearer s3cret"}
    for address in ("localhost:8001", "127.0.0.1:8001", "[::1]:8001"):
        assert credentials.channel(address, encrypted=False) is None
    for address in ("triton:8001", "10.0.0.1:8001", "localhost.example.org:8001"):
        with pytest.raises(InputError, match="never sent unencrypted"):
            credentials.channel(address, encrypted=False)
    assert credentials.channel("triton:8001", encrypted=True) is not None
