import os
import pwd

import pytest

from crosseai.client.promotion.audit import _user


def test_who_is_a_number_where_the_system_knows_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    assert _user() == pwd.getpwuid(os.getuid()).pw_name

    def unknown(number: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert _user() == str(os.getuid())
