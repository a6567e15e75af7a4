"""`tierwise doctor`: every trouble is found, told apart, and comes with a way to mend it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Done, Tierwise
from tierwise.ledger import Ledger
from tierwise.providers import embedded
from tierwise.testing import Fault, StandInReply, StandInUpstream

OLLAMA_ONLY = '[tiers.local]\nmodels = ["ollama:qwen3:8b"]\n'


@pytest.fixture(autouse=True)
def no_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed on the machine that runs the tests does not matter here."""
    monkeypatch.setattr(embedded, "find_weights", lambda _settings: None)


def _checks(done: Done, area: str) -> list[dict[str, Any]]:
    return [check for check in done.json["checks"] if check["area"] == area]


def _doctor(tierwise: Tierwise, *args: str, **env: str) -> Done:
    return tierwise("doctor", "--json", *args, env={"ANTHROPIC_API_KEY": "sk-secret", **env})


def test_all_can_be_used_with_a_key(tierwise: Tierwise) -> None:
    """With a key and no trouble the code is 0; a missing local tier is only a warning."""
    done = _doctor(tierwise)
    assert done.code == 0
    assert done.json["ok"] is True
    assert {check["status"] for check in done.json["checks"]} <= {"ok", "note", "warning"}
    (models,) = _checks(done, "models")
    assert (models["status"], "tierwise init" in models["mend"]) == ("warning", True)


def test_nothing_that_can_answer_is_broken(tierwise: Tierwise) -> None:
    """Without any key and any local model nothing can be run: code 1, and what to do."""
    done = tierwise("doctor", "--json")
    assert done.code == 1
    (models,) = _checks(done, "models")
    assert models["status"] == "broken"
    assert "ANTHROPIC_API_KEY" in models["mend"]


def test_keys_are_named_and_never_shown(tierwise: Tierwise) -> None:
    """Keys are told by variable, in text and JSON, without their values."""
    done = _doctor(tierwise)
    (key,) = _checks(done, "keys")
    assert (key["status"], key["facts"]["env"], key["facts"]["set"]) == ("ok", "ANTHROPIC_API_KEY", True)
    text = tierwise("doctor", env={"ANTHROPIC_API_KEY": "sk-secret"})
    assert "sk-secret" not in done.out + done.err + text.out + text.err
    other = tierwise("doctor", "--json", env={"ANTHROPIC_AUTH_TOKEN": "sk-secret"})
    assert "ANTHROPIC_AUTH_TOKEN" in _checks(other, "keys")[0]["text"]


def test_each_of_several_keys_is_told(tierwise: Tierwise, home: Path) -> None:
    """One that is missing is a warning: the others do its work."""
    config = home / "mine.toml"
    config.write_text('[providers.anthropic]\napi_key_envs = ["KEY_A", "KEY_B"]')
    done = tierwise("--config", str(config), "doctor", "--json", env={"KEY_B": "sk-secret"})
    first, second = _checks(done, "keys")
    assert (first["status"], first["facts"]["env"], first["mend"]) == ("warning", "KEY_A", "export KEY_A=…")
    assert "KEY_B" in first["text"]
    assert (second["status"], second["facts"]["env"]) == ("ok", "KEY_B")
    assert "sk-secret" not in done.out + done.err


@pytest.mark.parametrize("text", ["[[", "nonsense = 1\n", '[limits]\nmax_cost_usd = "-1"\n', 'baseline = "x"\n'])
def test_broken_configuration_is_one_check_among_others(tierwise: Tierwise, home: Path, text: str) -> None:
    """A configuration that cannot be used is broken, with its message; the rest is checked with the defaults."""
    (home / "tierwise.toml").write_text(text)
    done = _doctor(tierwise)
    assert done.code == 1
    (check,) = _checks(done, "configuration")
    assert check["status"] == "broken"
    assert "tierwise.toml" in check["text"]
    assert _checks(done, "prices")
    assert _checks(done, "ledger")


def test_broken_environment_is_told_of(tierwise: Tierwise) -> None:
    """The same for a variable, and for a --config that is not there."""
    assert "TIERWISE_BASELINE" in _checks(_doctor(tierwise, TIERWISE_BASELINE="x"), "configuration")[0]["text"]
    done = tierwise("--config", "nothing.toml", "doctor", "--json")
    assert "nothing.toml" in _checks(done, "configuration")[0]["text"]


def test_local_model_is_measured(tierwise: Tierwise, home: Path) -> None:
    """A model that Ollama has is asked for a short answer: its tokens a second stand beside the assumed ones."""
    (home / "tierwise.toml").write_text(OLLAMA_ONLY)
    with StandInUpstream(ollama_models=["qwen3:8b"], ollama_loaded=["qwen3:8b"]) as ollama:
        ollama.fail(Fault.trickle(64, 0.002, reply=StandInReply.of_text("one, two, three " * 10)))
        done = _doctor(tierwise, OLLAMA_HOST=ollama.url)
    (model,) = _checks(done, "local model")
    assert model["status"] == "ok"
    assert model["facts"]["loaded"] is True
    assert model["facts"]["measured_output_tokens_per_second"] > 0
    assert model["facts"]["assumed_output_tokens_per_second"] == 25
    assert model["facts"]["recorded_output_tokens_per_second"] is None


def test_no_speed_sends_no_prompt(tierwise: Tierwise, home: Path) -> None:
    """--no-speed only asks what is there."""
    (home / "tierwise.toml").write_text(OLLAMA_ONLY)
    with StandInUpstream(ollama_models=["qwen3:8b"]) as ollama:
        done = _doctor(tierwise, "--no-speed", OLLAMA_HOST=ollama.url)
        assert ollama.calls() == []
    (model,) = _checks(done, "local model")
    assert model["facts"]["loaded"] is False
    assert "waits for it" in model["text"]


def test_local_model_that_is_not_pulled_or_does_not_answer(tierwise: Tierwise, home: Path) -> None:
    """Not pulled says how to pull it; pulled and failing is broken."""
    (home / "tierwise.toml").write_text(OLLAMA_ONLY)
    with StandInUpstream(ollama_models=["aya:8b"]) as ollama:
        (model,) = _checks(_doctor(tierwise, OLLAMA_HOST=ollama.url), "local model")
    assert "ollama pull qwen3:8b" in model["text"]
    with StandInUpstream(ollama_models=["qwen3:8b"]) as ollama:
        ollama.fail(Fault.status(500), times=None)
        done = _doctor(tierwise, OLLAMA_HOST=ollama.url)
    (model,) = _checks(done, "local model")
    assert (done.code, model["status"]) == (1, "broken")


def test_recorded_speed_stands_beside(tierwise: Tierwise, home: Path, recorded: Ledger) -> None:
    """What the ledger measured of a model is shown."""
    (home / "tierwise.toml").write_text('[tiers.local]\nmodels = ["ollama:model-of-local"]\n')
    with StandInUpstream(ollama_models=["model-of-local"]) as ollama:
        (model,) = _checks(_doctor(tierwise, "--no-speed", OLLAMA_HOST=ollama.url), "local model")
    assert model["facts"]["recorded_output_tokens_per_second"] == pytest.approx(10 / 0.09, abs=0.1)


def test_the_classifier_is_really_asked(tierwise: Tierwise, home: Path) -> None:
    """The trained models answer; with the rules configured it is said that they are used."""
    (trained,) = _checks(_doctor(tierwise), "classifier")
    assert (trained["status"], trained["facts"]["kind"]) == ("ok", "trained")
    assert trained["facts"]["test"]["texts"] > 1_000
    (home / "tierwise.toml").write_text('classifier = "rules"\n')
    (rules,) = _checks(_doctor(tierwise), "classifier")
    assert (rules["status"], rules["facts"]["kind"]) == ("ok", "rules")


def test_price_data_is_told_with_its_age(tierwise: Tierwise) -> None:
    """Package, version and age in days."""
    (prices,) = _checks(_doctor(tierwise), "prices")
    assert prices["facts"]["package"] == "genai-prices"
    assert prices["facts"]["version"] in prices["text"]
    assert prices["facts"]["age_days"] >= 0


def test_old_price_data_is_a_warning(tierwise: Tierwise, monkeypatch: pytest.MonkeyPatch) -> None:
    """After sixty days prices may have changed: a warning with the command to upgrade."""
    from datetime import UTC, date, datetime, timedelta

    from tierwise.prices import PriceBook
    from tierwise.prices.book import PriceDataInfo

    old = datetime.now(UTC).date() - timedelta(days=61)
    info = PriceDataInfo("genai-prices", "0.2.3", old, date(2026, 1, 1))
    monkeypatch.setattr(PriceBook, "info", lambda _self, _today: info)
    done = _doctor(tierwise)
    (prices,) = _checks(done, "prices")
    assert (done.code, prices["status"], prices["facts"]["age_days"]) == (0, "warning", 61)
    assert prices["mend"] == "pip install --upgrade genai-prices"


def test_unpriced_model_of_a_tier_is_broken(tierwise: Tierwise, home: Path) -> None:
    """Nothing would be routed to it, so it is told with the entry to add."""
    (home / "tierwise.toml").write_text('[tiers]\nown = ["openai:my-own"]\n')
    done = _doctor(tierwise)
    assert done.code == 1
    broken = [check for check in _checks(done, "prices") if check["status"] == "broken"]
    assert [check["facts"]["model"] for check in broken] == ["my-own"]
    assert "[[prices]]" in broken[0]["mend"]


def test_sound_ledger_is_described(tierwise: Tierwise, recorded: Ledger) -> None:
    """Path, size, calls, schema and soundness."""
    ledger = _checks(_doctor(tierwise), "ledger")[0]
    assert ledger["status"] == "ok"
    assert ledger["facts"]["calls"] == 5
    assert ledger["facts"]["bytes"] > 10_000
    assert ledger["facts"]["schema"] >= 1
    assert ledger["facts"]["problems"] == []


def test_looking_for_a_ledger_makes_none(tierwise: Tierwise, ledger_path: Path) -> None:
    """Before the first call the doctor says so and creates nothing."""
    (ledger,) = _checks(_doctor(tierwise), "ledger")
    assert (ledger["status"], ledger["facts"]["exists"]) == ("ok", False)
    assert not ledger_path.exists()


def test_place_where_no_ledger_can_be_made_is_broken(tierwise: Tierwise, home: Path) -> None:
    """A path below something that is no directory cannot become a ledger."""
    (home / "file").touch()
    places = [home / "file" / "ledger.db", *([Path("/proc/none/ledger.db")] if Path("/proc/self").exists() else [])]
    for place in places:
        done = _doctor(tierwise, TIERWISE_LEDGER=str(place))
        assert (done.code, _checks(done, "ledger")[0]["status"]) == (1, "broken")
    assert [path.name for path in home.iterdir()] == ["file"]


def test_records_that_waited_are_folded_in(tierwise: Tierwise, recorded: Ledger, upstream: StandInUpstream) -> None:
    """What waited in a spool is told, and is in the ledger afterwards."""
    connection = sqlite3.connect(recorded.path, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    assert tierwise("run", "Summarise this").code == 0
    locked = _doctor(tierwise)
    assert (locked.code, _checks(locked, "ledger")[0]["status"]) == (1, "broken")
    connection.close()
    ledger = _checks(_doctor(tierwise), "ledger")
    assert ledger[0]["facts"]["calls"] == 6
    assert any("folded in" in check["text"] for check in ledger)


def test_calls_that_a_process_left_behind_are_told_of(tierwise: Tierwise, recorded: Ledger) -> None:
    """A call whose process was killed is counted, by id, and is no trouble of the ledger's."""
    code = (
        "import os, sys\n"
        "from dataclasses import replace\n"
        "from tierwise.core.decisions import CallStatus, OutcomeKind\n"
        "from tierwise.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "stored = next(iter(ledger.calls()))\n"
        "call = replace(stored.call, call_id='left-behind', status=CallStatus.OPEN)\n"
        "attempt = replace(stored.attempts[0], call_id='left-behind', outcome=OutcomeKind.OPEN)\n"
        "ledger.start(call, attempt)\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(recorded.path)], check=False)
    done = _doctor(tierwise)
    told = [check for check in _checks(done, "ledger") if "left behind" in check["text"]]
    assert [check["facts"] for check in told] == [{"abandoned_calls": 1, "newest_call_ids": ["left-behind"]}]
    assert done.code == 0


def test_damaged_ledger_is_recovered_and_kept(tierwise: Tierwise, recorded: Ledger) -> None:
    """Broken first, with the command; --recover saves the rows and keeps the damaged file; then all is sound."""
    Ledger(recorded.path).check()
    connection = sqlite3.connect(recorded.path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(recorded.path.read_bytes())
    data[4096 : 4096 + 64] = b"\xff" * 64
    recorded.path.write_bytes(data)
    done = _doctor(tierwise)
    assert done.code == 1
    broken = [check for check in _checks(done, "ledger") if check["status"] == "broken"]
    assert "--recover" in broken[0]["mend"]
    mended = _doctor(tierwise, "--recover")
    assert mended.code == 0
    (recovery,) = _checks(mended, "recovery")
    assert recovery["facts"]["calls"] == 5
    assert Path(recovery["facts"]["kept_as"]).exists()
    assert tierwise("report", "--json").json["total"]["calls"] == 5


def test_sound_ledger_is_not_recovered(tierwise: Tierwise, recorded: Ledger) -> None:
    """--recover leaves a sound ledger, and a missing one, as they are."""
    before = recorded.path.stat().st_ino
    done = _doctor(tierwise, "--recover")
    assert (done.code, _checks(done, "recovery")[0]["status"]) == (0, "note")
    assert recorded.path.stat().st_ino == before
    elsewhere = _doctor(tierwise, "--recover", TIERWISE_LEDGER=str(recorded.path) + ".none")
    assert "nothing to recover" in _checks(elsewhere, "recovery")[0]["text"]


def test_text_tells_status_area_and_mending(tierwise: Tierwise) -> None:
    """A person reads a line for each check, and how to mend what is not well, without colours in a pipe."""
    done = tierwise("doctor")
    assert done.code == 1
    assert "\x1b" not in done.out
    assert any(line.startswith("broken  models") for line in done.out.splitlines())
    assert "to mend it: export ANTHROPIC_API_KEY" in done.out
    assert done.err == ""
