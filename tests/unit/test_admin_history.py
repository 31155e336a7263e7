"""Rates, quantiles and forecasts from looks at the counters."""

from edgeproxy.admin.history import History, Look, quantile

INF = float("inf")


class Program:
    """Counters that a test sets, and a clock."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.accepted = 0
        self.events = self.bytes = 0
        self.age: float | None = None
        self.counts: dict[tuple[str, ...], float] = {}
        self.buckets: tuple[tuple[float, float], ...] = ((0.1, 0), (1.0, 0), (INF, 0))
        self.history = History(self.look, now=lambda: self.at)

    def look(self) -> Look:
        totals = {
            "received": self.accepted,
            "accepted": self.accepted,
            "delivered": 0,
            "quarantined": 0,
        }
        return Look(
            totals, self.events, self.bytes, self.age, dict(self.counts), {"t": self.buckets}
        )

    def pass_time(self, seconds: float, step: float = 5.0) -> None:
        for _ in range(int(seconds / step)):
            self.at += step
            self.history.step()


def test_rates_are_what_grew_in_each_step_by_the_second():
    program = Program()
    program.history.step()
    program.accepted = 50
    program.pass_time(5)
    columns = program.history.columns()
    assert columns["accepted"] == [10.0]
    assert columns["at"] == [1005.0]


def test_the_past_is_bounded_and_a_day_has_coarser_steps():
    program = Program()
    program.pass_time(26 * 3600)
    assert len(program.history.columns()["at"]) == 180
    day = program.history.columns(day=True)["at"]
    assert len(day) <= 721
    assert day[-1] - day[0] > 23.5 * 3600


def test_causes_are_counted_for_a_quarter_of_an_hour():
    program = Program()
    program.counts["refused", "unknown_key"] = 3
    program.history.step()
    assert program.history.lately() == {("refused", "unknown_key"): 3}
    program.pass_time(1000)
    assert program.history.lately() == {}
    program.counts["refused", "unknown_key"] = 5
    assert program.history.lately() == {("refused", "unknown_key"): 2}


def test_quantiles_are_of_the_last_minutes_only():
    program = Program()
    program.buckets = ((0.1, 0), (1.0, 100), (INF, 100))
    program.pass_time(400)
    program.buckets = ((0.1, 100), (1.0, 200), (INF, 200))
    times = program.history.times()["t"]
    assert times["p50"] is not None
    assert times["p50"] <= 0.1
    assert times["p99"] is not None
    assert times["p99"] <= 0.1


def test_a_quantile_lies_within_its_bucket():
    assert quantile(((1.0, 50), (2.0, 100), (INF, 100)), 0.75) == 1.5
    assert quantile(((1.0, 50), (2.0, 50), (INF, 100)), 0.99) == 2.0
    assert quantile(((1.0, 0), (INF, 0)), 0.5) is None
    assert quantile((), 0.5) is None


def test_a_backlog_that_grows_says_when_the_limit_is_reached():
    program = Program()
    for _ in range(20):
        program.events += 10
        program.bytes += 500
        program.age = (program.age or 0) + 5
        program.pass_time(5)
    assert program.history.full_in(20_000) == 100.0


def test_a_lane_that_works_fills_no_disk():
    program = Program()
    for _ in range(20):
        program.events, program.bytes, program.age = program.events + 1, program.bytes + 500, 0.5
        program.pass_time(5)
    assert program.history.full_in(20_000) is None
