"""What the log says of addresses that hold secrets."""

import pytest

from app.shared import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://ada:secret@store:6379/0", "redis://store:6379/0"),
        ("rediss://ada:se@cret@store/0?ssl_ca_certs=ca.pem", "rediss://store/0"),
        ("redis://store/0?username=ada@example.com&password=secret", "redis://store/0"),
        ("redis://ada:secret@store/0?password=sec@ret", "redis://store/0"),
        ("https://ada:secret@models.example/v1#sec@ret", "https://models.example/v1"),
        ("unix:///run/valkey.sock?db=1&password=a@b", "unix:///run/valkey.sock"),
    ],
)
def test_an_address_is_shown_without_user_password_query_and_fragment(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
