"""A login lasts a week, and no other token's cookie opens anything."""

from edgeproxy.admin.session import DAYS, Session


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_cookie_is_good_until_its_time():
    clock = Clock()
    session = Session("token", clock)
    cookie = session.cookie()
    assert session.is_good(cookie)
    clock.now += DAYS * 86400 + 1
    assert not session.is_good(cookie)


def test_cookies_of_another_token_or_made_up_ones_are_not_good():
    clock = Clock()
    session = Session("token", clock)
    until, _, hashed = session.cookie().partition(".")
    for cookie in (
        Session("other", clock).cookie(),
        f"{int(until) + 1}.{hashed}",
        f"{until}.",
        until,
        "",
        f"٣.{hashed}",
        "9" * 5000 + "." + hashed,
        f"{until}.\udcff",
    ):
        assert not session.is_good(cookie)


def test_without_a_token_nothing_opens():
    session = Session("")
    assert not session.opens("")
    assert not session.is_good(session.cookie())
    assert not session.is_needed


def test_the_token_is_in_neither_name_nor_value():
    session = Session("sesame")
    assert "sesame" not in session.name + session.cookie()
    assert Session("other").name != session.name
