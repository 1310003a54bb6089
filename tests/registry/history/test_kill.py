"""``kill -9`` at every step of what changes a registry: what is left is true, and the next start ends it.

The steps run in children of one process that has imported MLflow: this file, started as a script.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

STEPS = (
    "create_experiment",
    "create_run",
    "log_batch",
    "log_artifacts",
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_terminated",
    "delete_model_version",
    "delete_run",
)
"""Every call of MLflow's client that changes something."""
REGISTERING = ("register the first", "register", "hold")
"""Of these each step is entered and not ended, which leaves the same as a kill after the step before."""
DECISION_STEP = 8
"""The first step of a registration that depends on what the gate says."""
ACTIONS = (*REGISTERING, "force", "rollback", "prune")


@pytest.mark.parametrize("action", ACTIONS)
def test_every_kill_leaves_one_champion_and_true_records(
    decided, make_variant, pristine: Path, uri: str, tmp_path: Path, action: str
) -> None:
    prepare(decided, action)
    folder = Path(uri.removeprefix("sqlite:///")).parent
    shutil.copytree(folder, tmp_path / "prepared")
    bundle = tmp_path / "bundle9"
    make_variant(pristine, bundle, 9)
    command = [sys.executable, __file__, action, str(folder), str(tmp_path / "prepared"), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= 3, done.stdout


def prepare(decided: Any, action: str) -> None:
    outcomes = {"register the first": (), "prune": ("promote", "hold", "promote"), "force": ("promote", "reject")}
    for number, outcome in enumerate(outcomes.get(action, ("promote", "promote", "hold")), start=1):
        decided(number, outcome)


def act(action: str, uri: str, bundle: Path) -> None:
    from registry.backend.client import RegistryClient
    from registry.champion import promote, rollback
    from registry.register import register
    from registry.retention import prune

    if action in REGISTERING:
        register(bundle, "music", uri)
    elif action == "force":
        promote(RegistryClient(uri), "music", 2, "it is needed", force="it really is")
    elif action == "rollback":
        rollback(RegistryClient(uri), "music", "bad lists")
    else:
        prune(RegistryClient(uri), "music", keep=1, older_than_days=0)


def drive(action: str, folder: Path, prepared: Path, bundle: Path) -> int:
    """Kill at the first step, the second and so on until there are no more; return at how many."""
    uri, points = f"sqlite:///{folder}/mlflow.db", 0
    for when in ("before", "within") if action == "prune" else ("within",):
        for step in count(DECISION_STEP if action == "hold" else 1):
            restore(folder, prepared)
            if not killed(partial(armed, when, step, action, uri, bundle)):
                break
            checked(partial(check, action, uri, bundle))
            points += 1
    return points


def armed(when: str, step: int, action: str, uri: str, bundle: Path) -> None:
    arm(when, step)
    act(action, uri, bundle)


def check(action: str, uri: str, bundle: Path) -> None:
    check_after_kill(action, uri)
    check_after_next_run(action, uri, bundle)


def restore(folder: Path, prepared: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(prepared, folder)


def killed(work: Callable[[], object]) -> bool:
    """Run in a child; True where it was killed, False where it came to its end."""
    return status_of(work) == -signal.SIGKILL


def checked(work: Callable[[], object]) -> None:
    if status_of(work) != 0:
        raise SystemExit(1)


def status_of(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def arm(when: str, step: int) -> None:
    """Kill this process before the given change, or within it: before its transaction ends."""
    from mlflow.tracking import MlflowClient
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    counted = iter(range(1, 1000))
    due: list[bool] = []

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            due[:] = [True] * (next(counted) == step)
            if due and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = method(*args, **options)
            if due:  # a change of files has no transaction: it ends here
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in STEPS:
        setattr(MlflowClient, name, wrapped(getattr(MlflowClient, name)))
    written: set[int] = set()
    event.listen(
        Engine, "after_cursor_execute", lambda link, _, sql, *__: written.add(id(link)) if sql[:6] in CHANGES else None
    )
    event.listen(
        Engine, "commit", lambda link: os.kill(os.getpid(), signal.SIGKILL) if due and id(link) in written else None
    )


CHANGES = ("INSERT", "UPDATE", "DELETE")


def check_after_kill(action: str, uri: str) -> None:
    """Before anybody has repaired anything."""
    from registry.backend.client import RegistryClient
    from registry.champion import records
    from registry.loading import load

    client = RegistryClient(uri)
    champion = client.aliases("music").get("champion")
    if action == "register the first" and champion is None:
        return
    assert load("champion", "music", uri).manifest.digest == client.get("music", "champion").tags["bundle_digest"]
    past = records(client, "music")
    assert sum(record.state == "intent" for record in past) <= 1
    done = [record for record in past if record.moves_champion and record.state == "done"]
    assert all(later.before == earlier.after for earlier, later in pairwise(done))
    left = [record for record in past if record.moves_champion and record.state == "intent"]
    assert champion in {record.after for record in [*done[-1:], *left]}


def check_after_next_run(action: str, uri: str, bundle: Path) -> None:
    """A look at the list closes the records by the truth; the same command again does what was left to do, once."""
    from registry.audit_log import reconcile_if_idle
    from registry.backend.client import RegistryClient
    from registry.champion import records

    client = RegistryClient(uri)
    before, versions = client.aliases("music").get("champion"), client.numbers("music")
    reconcile_if_idle(client, "music")
    past = records(client, "music")
    assert (client.aliases("music").get("champion"), client.numbers("music")) == (before, versions)
    assert not [record for record in past if record.state == "intent"]
    assert [record.after for record in past if record.moves_champion and record.state == "done"][-1:] == [
        before
    ] * bool(before)
    for record in past:
        assert record.kind != "outside"  # no record called a move done that did not happen
        if record.state == "abandoned":
            assert record.kind == "deletion" or record.after not in (before, record.before)
        if record.kind == "deletion":
            assert (record.state == "done") == (record.version not in versions)
    again(action, uri, bundle, before, client)


def again(action: str, uri: str, bundle: Path, before: int | None, client: Any) -> None:
    from registry.champion import records
    from registry.loading import load

    goal = {"register the first": 1, "register": 4, "hold": 2, "force": 2, "rollback": 1, "prune": 3}[action]
    if before != goal or action in ("hold", "prune", "register"):
        act(action, uri, bundle)
    assert client.aliases("music") == {"champion": goal}
    assert load("champion", "music", uri).num_users == 40
    past = [record for record in records(client, "music") if record.state == "done"]
    assert len({record.bundle for record in past if record.kind == "decision"}) == sum(
        record.kind == "decision" for record in past
    )
    assert [record.after for record in past if record.moves_champion][-1] == goal
    if action == "prune":
        kept = {client.get("music", number).run_id for number in client.numbers("music")}
        assert client.numbers("music") == {1, 3}
        assert {path.name for path in (client.database.parent / "artifacts").iterdir()} == kept
    if action == "force":
        assert client.get("music", 2).tags["forced"] == "it really is"


def main() -> None:
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    import registry.champion
    import registry.loading
    import registry.register
    import registry.retention
    from registry.gate.gate_config import Decision

    # what a killed process has written is there, whether or not it has reached the disk
    event.listen(Engine, "connect", lambda link, _: link.execute("PRAGMA synchronous = OFF"))
    action, *paths = sys.argv[1:]
    outcome = "hold" if action == "hold" else "promote"
    decision = Decision(outcome=outcome, reason="As was said.", metric="recall@5", users=40)
    registry.register.decide = lambda _, champion=None, *__, **___: decision.model_copy(update={"champion": champion})
    print(drive(action, *map(Path, paths)), "kills")


if __name__ == "__main__":
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    main()
