"""Settings come from defaults, a file, the environment and the command line, and none is ignored."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from evaluator.errors import ConfigError
from evaluator.runtime.settings import load, no_color

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(file: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {}, overrides)
    return str(caught.value).splitlines()


def test_defaults_are_the_contracts() -> None:
    settings = load(None, {})
    assert (settings.app_id, settings.shards, settings.commit_interval, settings.state_interval) == (
        "evaluator", 16, 1_000_000, 5_000_000,
    )  # fmt: skip
    assert (settings.web.address, settings.url) == (("127.0.0.1", 10095), "http://127.0.0.1:10095")
    assert settings.web.max_rejected == Fraction(1, 100)
    assert (settings.topics.alerts, settings.topics.control) == ("slo.alerts", "slo.control")
    assert (settings.log.level, settings.log.format) == ("info", "json")


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "app_id: file\nshards: 4\nweb: {listen: 'a:1'}\nkafka: {username: bob}\n")
    environ = {"EVALUATOR_SHARDS": "8", "EVALUATOR_WEB__LISTEN": "b:2", "EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": "k:9"}
    settings = load(file, environ, {"web": {"listen": "c:3"}})
    assert (settings.app_id, settings.shards, settings.web.listen) == ("file", 8, "c:3")
    assert (settings.kafka.username, settings.kafka.bootstrap_servers) == ("bob", "k:9")


def test_the_file_may_be_empty(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing\n"), {}).app_id == "evaluator"


def test_durations_have_units() -> None:
    assert load(None, {"EVALUATOR_COMMIT_INTERVAL": "250ms"}).commit_interval == 250_000
    assert refused(environ={"EVALUATOR_COMMIT_INTERVAL": "5"})[0].startswith(
        'EVALUATOR_COMMIT_INTERVAL: a duration needs a unit, found "5"'
    )


def test_an_empty_variable_counts_as_none() -> None:
    assert load(None, {"EVALUATOR_APP_ID": ""}).app_id == "evaluator"


def test_a_variable_that_nobody_knows_is_named_with_the_nearest_one() -> None:
    assert refused(environ={"EVALUATOR_KAFKA__BOOTSTRAP_SERVER": "x"}) == [
        'EVALUATOR_KAFKA__BOOTSTRAP_SERVER: unknown setting; did you mean "EVALUATOR_KAFKA__BOOTSTRAP_SERVERS"?'
    ]


@pytest.mark.parametrize(
    "name",
    ["EVALUATOR_SERVICE_HOST", "EVALUATOR_PORT", "EVALUATOR_PORT_10095_TCP_ADDR", "EVALUATOR_TEST_KAFKA", "PATH"],
)
def test_what_kubernetes_and_the_tests_set_is_no_setting(name: str) -> None:
    assert load(None, {name: "tcp://10.0.0.1:10095"}).app_id == "evaluator"


def test_a_key_that_nobody_knows_is_named_with_its_place_and_the_nearest_one(tmp_path: Path) -> None:
    file = written(tmp_path, "kafka:\n  bootstrap_server: x\nshard: 3\n")
    assert sorted(refused(file)) == [
        f'{file}:2:3: kafka.bootstrap_server: unknown key; did you mean "bootstrap_servers"?',
        f'{file}:3:1: shard: unknown key; did you mean "shards"?',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("app_id: a\napp_id: b\n", "app_id", id="a_key_twice"),
        pytest.param("kafka: {create_topics: yes}\n", "yes", id="yes_is_no_boolean"),
        pytest.param("- a\n", "expected a mapping", id="a_list"),
        pytest.param("app_id: [\n", "settings.yaml", id="no_yaml"),
        pytest.param("web: {listen: localhost}\n", "expected HOST:PORT", id="no_port"),
        pytest.param("web: {listen: 'h:70000'}\n", "expected HOST:PORT", id="port_out_of_range"),
        pytest.param("shards: 0\n", "shards: input should be greater than or equal to 1", id="no_shards"),
        pytest.param("log: {format: xml}\n", "log.format: input should be 'json' or 'console'", id="no_such_format"),
        pytest.param("app_id: 'a b'\n", "app_id", id="no_topic_name"),
        pytest.param("commit_interval: 0s\n", "above 0", id="no_time_at_all"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (line,) = refused(written(tmp_path, text))
    assert said in line
    assert line.startswith(str(tmp_path))


def test_every_error_is_told_at_once() -> None:
    assert len(refused(environ={"EVALUATOR_SHARDS": "x", "EVALUATOR_LOG__LEVEL": "loud"})) == 2


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml") == [
        f"cannot read settings from {tmp_path / 'none.yaml'}: No such file or directory"
    ]


def test_what_belongs_together_is_asked_for_together() -> None:
    assert refused(environ={"EVALUATOR_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}) == [
        "kafka: security_protocol SASL_SSL also needs sasl_mechanism, username, password_file"
    ]
    assert "both or not at all" in refused(environ={"EVALUATOR_KAFKA__CERT_FILE": "/c"})[0]


def test_a_password_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hunter2\n", encoding="utf-8")
    settings = load(None, {"EVALUATOR_KAFKA__PASSWORD_FILE": str(tmp_path / "pw")})
    password = settings.kafka.password()
    assert password is not None
    assert password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{password!r} {settings!r}"


@pytest.mark.parametrize(
    ("listen", "address", "url"),
    [
        (":10095", ("0.0.0.0", 10095), "http://127.0.0.1:10095"),
        ("[::1]:9", ("::1", 9), "http://[::1]:9"),
        ("host:0", ("host", 0), "http://host:0"),
    ],
)
def test_addresses(listen: str, address: tuple[str, int], url: str) -> None:
    settings = load(None, {"EVALUATOR_WEB__LISTEN": listen})
    assert (settings.web.address, settings.url) == (address, url)


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.02", Fraction(2, 100)), ("0.5%", Fraction(5, 1000)), ("0", Fraction(0)), ("100%", Fraction(1))],
)
def test_the_share_of_rejects_is_a_ratio_as_in_the_rules(tmp_path: Path, text: str, share: Fraction) -> None:
    assert load(None, {"EVALUATOR_WEB__MAX_REJECTED": text}).web.max_rejected == share
    assert load(written(tmp_path, f"web: {{max_rejected: {text}}}\n"), {}).web.max_rejected == share


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2", "2 is more than the whole; a ratio lies between 0% and 100%; write 2%"),
        ("few", 'expected a ratio such as 0.5% or 0.005, found "few"'),
        ("-1%", 'expected a ratio such as 0.5% or 0.005, found "-1%"'),
        ("nan", 'expected a ratio such as 0.5% or 0.005, found "nan"'),
    ],
)
def test_a_share_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert refused(environ={"EVALUATOR_WEB__MAX_REJECTED": text}) == [f"EVALUATOR_WEB__MAX_REJECTED: {said}"]
    file = written(tmp_path, f"web: {{max_rejected: {text}}}\n")
    assert refused(file) == [f"{file}:1:7: web.max_rejected: {said}"]


def test_others_reach_us_under_the_external_url() -> None:
    assert load(None, {"EVALUATOR_EXTERNAL_URL": "https://slo.example.com/x/"}).url == "https://slo.example.com/x"
    assert "external_url" in refused(external_url="ftp://x")[0]


def test_no_color_is_respected() -> None:
    assert (no_color({"NO_COLOR": "1"}), no_color({"NO_COLOR": ""}), no_color({})) == (True, False, False)
