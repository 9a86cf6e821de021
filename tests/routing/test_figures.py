from aiproxyd.config import Target
from aiproxyd.errors import UpstreamKeyRefused
from aiproxyd.routing.figures import MAX_COOLDOWNS, families
from tests.routing.staging import A, Stage, refusal


def test_what_came_of_attempts_and_what_rests_can_be_read() -> None:
    stage = Stage((2, 1, 1), max_concurrency=3)
    stage.fail(stage.plan(A), UpstreamKeyRefused("no"))
    stage.succeed(stage.plan(A))

    read = {family.name: dict(family.samples) for family in families(stage.router)}

    assert read["aiproxyd_attempts"] == {("a", "key"): 1, ("a", "ok"): 1}
    assert read["aiproxyd_upstream_usable"] == {("a",): 1.0, ("b",): 1.0, ("c",): 1.0}
    assert read["aiproxyd_cooldown_seconds"] == {("a", "1", ""): 60.0}
    assert read["aiproxyd_upstream_running"] == {("a",): 0.0, ("b",): 0.0, ("c",): 0.0}
    assert read["aiproxyd_upstream_waiting"] == {("a",): 0.0, ("b",): 0.0, ("c",): 0.0}


def test_the_names_that_callers_choose_do_not_pile_up() -> None:
    stage = Stage()

    for number in range(MAX_COOLDOWNS + 50):
        stage.fail(stage.plan(Target("a", f"m{number}")), refusal(429, 30.0 + number))

    read = {family.name: dict(family.samples) for family in families(stage.router)}
    assert len(read["aiproxyd_cooldown_seconds"]) == MAX_COOLDOWNS
    assert ("a", "1", "m0") not in read["aiproxyd_cooldown_seconds"]
