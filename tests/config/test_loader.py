"""A configuration is read as written, and everything wrong with it is reported at once, at its place."""

from __future__ import annotations

from pathlib import Path

import cbor2
import msgspec
import pytest

from shardfun.config import Config, config_from_mapping, load_config
from shardfun.config.layers import KEY_PARTS_MAX
from shardfun.config.loader import FILE_BYTES_MAX, setting_paths
from shardfun.config.schema import MeshConfig
from shardfun.errors import ConfigurationError

APP = 'app = "pkg.mod:app"\n'


def _load(folder: Path, text: str, *overrides: str, **environ: str) -> Config:
    file = folder / "bank.toml"
    file.write_text(text)
    return load_config(file, overrides=overrides, environ=environ)


def _problems(folder: Path, text: str, *overrides: str, **environ: str) -> list[str]:
    """All problems, with the file called FILE."""
    with pytest.raises(ConfigurationError) as caught:
        _load(folder, text, *overrides, **environ)
    return [problem.replace(str(folder / "bank.toml"), "FILE") for problem in caught.value.problems]


def test_defaults_and_what_depends_on_the_file(folder: Path) -> None:
    config = _load(folder, APP)
    assert (config.app, config.name, config.shards) == ("pkg.mod:app", "bank", 2)
    assert config.data_dir == folder / "data" / "bank"
    assert config.checkpoint.interval_s == 0.2
    assert config.state.cache_bytes == 256 << 20
    assert config.supervision.invocation_timeout_s == 300
    assert config.log.file is None
    assert config.ingress == {}


def test_values_and_relative_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        APP
        + 'name = "n"\ndata_dir = "../d"\n[checkpoint]\ninterval = "1.5 s"\nloop_share = 1\n[state]\ncache = 2097152\n[log]\nfile = "l/x.log"'
    )
    (folder / "bank.toml").write_text(text)
    monkeypatch.chdir(folder)
    config = load_config("bank.toml", environ={})
    assert config.data_dir == folder.parent / "d"
    assert config.log.file == folder / "l" / "x.log"
    assert config.checkpoint.interval_s == 1.5
    assert isinstance(config.checkpoint.loop_share, float)
    assert config.state.cache_bytes == 2 << 20


def test_the_data_dir_follows_a_name_from_anywhere(folder: Path) -> None:
    assert _load(folder, APP, "name=other").data_dir == folder / "data" / "other"


def test_all_problems_at_once_each_with_its_line(folder: Path) -> None:
    text = """\
shardz = 3
shards = 65
[checkpont]
interval = "1 s"
[checkpoint]
interval = 200
timeout = "3 parsecs"
loop_share = nan
[mesh]
transport = "icp"
host = ""
frame_messages = true
[flow]
backlog_low = 50_000
[log]
level = "warn"
"""
    assert _problems(folder, text) == [
        "FILE:1: shardz: no such setting; did you mean 'shards'?",
        "FILE:3: checkpont: no such setting; did you mean 'checkpoint'?",
        "FILE: app: required, but missing: expected 'package.module:attribute'",
        "FILE:2: shards: expected a whole number <= 64, got 65",
        'FILE:6: checkpoint.interval: expected a duration with a unit, got the plain number 200: write "200 ms" or "200 s"',
        "FILE:7: checkpoint.timeout: expected a unit (us, ms, s, min, h, d), got '3 parsecs'",
        "FILE:8: checkpoint.loop_share: expected a finite number, got nan",
        'FILE:10: mesh.transport: expected "ipc" or "tcp", got \'icp\'; did you mean "tcp"?',
        "FILE:11: mesh.host: expected a text of length >= 1, got ''",
        "FILE:12: mesh.frame_messages: expected a whole number, got true",
        "FILE:14: flow.backlog_low: expected less than backlog_high (50000), got 50000",
        'FILE:16: log.level: expected "debug", "info", "warning" or "error", got \'warn\'; did you mean "warning"?',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[mesh]\nbuffer_frames = 31", "FILE:3: mesh.buffer_frames: expected at least window_frames + 8 = 32, got 31"),
        ("[mesh]\nwindow_frames = 25", "FILE:2: mesh.buffer_frames: expected at least window_frames + 8 = 33, got 32"),
        ('[state]\ndirty_hard = "1 MiB"', "FILE:3: state.dirty_hard: expected at least dirty_soft (64 MiB), got 1 MiB"),
        ("[flow]\nbacklog_limit = 50_000", "FILE:3: flow.backlog_limit: expected more than backlog_high (50000), got 50000"),
        (
            '[supervision]\nheartbeat_timeout = "300 ms"',
            "FILE:3: supervision.heartbeat_timeout: expected at least twice heartbeat_interval (0.25 s), got 0.3 s",
        ),
        ("checkpoint = 5", "FILE:2: checkpoint: expected a table [checkpoint], got 5"),
        ("ingress = []", "FILE:2: ingress: expected a table [ingress], got []"),
        ('name = "../x"', "FILE:2: name: expected 1 to 64 letters, digits, '.', '_' or '-', got '../x'"),
        ('data_dir = ""', "FILE:2: data_dir: expected a path, got ''"),
        ("[checkpoint]\ninterval = '9 ms'", "FILE:3: checkpoint.interval: expected 10 ms to 1 h, got '9 ms'"),
    ],
)
def test_one_problem(folder: Path, text: str, problem: str) -> None:
    assert _problems(folder, APP + text) == [problem]


@pytest.mark.parametrize("app", ["x", "a:b:c", "a.b", ":x", "a/b:c", "1a:b", ""])
def test_an_app_is_a_module_and_an_attribute(folder: Path, app: str) -> None:
    [problem] = _problems(folder, f'app = "{app}"')
    assert problem == f"FILE:1: app: expected 'package.module:attribute', got {app!r}"


def test_files_that_are_none(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.toml: expected a TOML configuration file, got: No such file"):
        load_config(folder / "no.toml", environ={})
    assert _problems(folder, APP + "x = = 1") == ["FILE:2: not valid TOML, at column 5: Invalid value"]
    (folder / "bank.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="UTF-8 text, but byte 0"):
        load_config(folder / "bank.toml", environ={})
    deep = ".".join(["a"] * (KEY_PARTS_MAX + 1))
    for text in (f"{deep} = 1", f"[{deep}]", f"a = {{ {deep} = 1 }}"):
        assert _problems(folder, text) == ["FILE: expected keys of at most 32 parts, such as 'http.listen'"]
    (folder / "bank.toml").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigurationError, match="at most"):
        load_config(folder / "bank.toml", environ={})


def test_dots_in_values_are_no_parts_of_keys(folder: Path) -> None:
    hosts = ", ".join(f"'10.0.0.{number}'" for number in range(40))
    text = f"name = '''{'a.' * 40}'''\nx = [\n{hosts}\n]\n" + APP
    assert [problem[:9] for problem in _problems(folder, text)] == ["FILE:2: x", "FILE:1: n"]


def test_lines_with_windows_line_ends(folder: Path) -> None:
    (folder / "bank.toml").write_bytes(b'app = "a:b"\r\n\r\nshards = 0\r\n')
    with pytest.raises(ConfigurationError, match=r"bank\.toml:3: shards"):
        load_config(folder / "bank.toml", environ={})


def test_overrides_win_over_the_environment_over_the_file(folder: Path) -> None:
    text = APP + '[checkpoint]\ninterval = "1 s"\ntimeout = "1 s"\nidle_interval = "1 s"'
    environ = {
        "SHARDFUN_CHECKPOINT__INTERVAL": "2 s",
        "SHARDFUN_CHECKPOINT__TIMEOUT": "2 s",
        "PATH": "/bin",
        "SHARDFUN_SHARDS": "4",
    }
    config = _load(folder, text, "checkpoint.interval=3 s", "shards=5", 'checkpoint.interval="4 s"', **environ)
    assert (config.checkpoint.interval_s, config.checkpoint.timeout_s, config.checkpoint.idle_interval_s) == (4, 2, 1)
    assert config.shards == 5


def test_override_values(folder: Path) -> None:
    config = _load(
        folder,
        APP,
        "name=007",
        "failure.validate_sends=true",
        "state.cache=64 MiB",
        "log.file=2024-01-01",
        "mesh = {host='::1'}",
    )
    assert config.name == "007"
    assert config.failure.validate_sends is True
    assert config.state.cache_bytes == 64 << 20
    assert config.log.file == folder / "2024-01-01"
    assert config.mesh.host == "::1"


def test_problems_of_overrides_name_the_override(folder: Path) -> None:
    text = APP + '[mesh]\nhost = "a"'
    overrides = ("nothing", "a b=1", "=1", "checkpoint.interval=200", "mesh.hots=x", "shards.x=1", "chekpoint.x=1")
    assert _problems(folder, text, *overrides, SHARDFUN_SHARDS="many", SHARDFUN_FLOW__X="1") == [
        "--set nothing: expected 'section.key=value', as in 'checkpoint.interval=500 ms'",
        "--set a b=1: expected 'section.key=value', as in 'checkpoint.interval=500 ms'",
        "--set =1: expected 'section.key=value', as in 'checkpoint.interval=500 ms'",
        "--set shards.x: shards is not a table, but the value 'many'",
        "--set chekpoint.x: chekpoint: no such setting; did you mean 'checkpoint'?",
        "environment variable SHARDFUN_SHARDS: shards: expected a whole number, got 'many'",
        (
            "--set checkpoint.interval: checkpoint.interval: expected a duration with a unit, got the plain number 200: "
            'write "200 ms" or "200 s"'
        ),
        "--set mesh.hots: mesh.hots: no such setting; did you mean 'host'?",
        "environment variable SHARDFUN_FLOW__X: flow.x: no such setting; known: backlog_high, backlog_low, backlog_limit, egress_pending, ingress_batch",
    ]


def test_an_override_cannot_smuggle_in_a_second_setting(folder: Path) -> None:
    assert "got '3\\nshards = 9'" in _problems(folder, APP, "shards=3\nshards = 9")[0]


def test_variables_that_others_set_are_ignored_but_misspelled_ones_are_not(folder: Path) -> None:
    others = {
        "SHARDFUN_SERVICE_HOST": "10.0.0.1",
        "SHARDFUN_PORT": "tcp://10.0.0.1:80",
        "SHARDFUN_PORT_80_TCP": "x",
        "XSHARDFUN_A__B": "1",
    }
    assert _load(folder, APP, **others).shards == 2
    assert _problems(folder, APP, SHARDFUN_CHECKPOINT_INTERVAL="1 s") == [
        "environment variable SHARDFUN_CHECKPOINT_INTERVAL: no such setting; did you mean SHARDFUN_CHECKPOINT__INTERVAL?"
    ]


def test_every_setting_can_come_from_the_environment(folder: Path) -> None:
    defaults = msgspec.to_builtins(_load(folder, APP + "[http]\n").to_dict())
    assert len(setting_paths()) > 30
    for path in setting_paths():
        variable = "SHARDFUN_" + "__".join(path).upper()
        if path != ("app",):
            assert any(
                f"environment variable {variable}: {'.'.join(path)}: " in p for p in _problems(folder, APP, **{variable: ""})
            )
        inner = defaults
        for part in path:
            inner = inner[part]


PROBE = APP + '[ingress.Flights-1]\nkind = "probe"\npath = "in.jsonl"\n'


@pytest.mark.usefixtures("probe_kinds")
class TestKinds:
    def test_options_are_read_by_their_struct(self, folder: Path) -> None:
        text = PROBE + 'target = "a/b"\nid = "key"\nformat = "csv"\nrate = 5\npoll = "20 ms"\nchunk = "1 KiB"\ntags = ["x"]\n'
        config = _load(folder, text + '[ingress.Flights-1.auth]\nuser = "u"\nttl = "2 min"\n[egress.out]\nkind = "probe"')
        ingress = config.ingress["Flights-1"]
        assert (ingress.kind, ingress.target, ingress.id_field) == ("probe", "a/b", "key")
        options = ingress.options
        assert options.path == str(folder / "in.jsonl")
        assert (options.format, options.rate, options.poll_s, options.chunk_bytes, options.tags) == (
            "csv",
            5.0,
            0.02,
            1024,
            ("x",),
        )
        assert (options.auth.user, options.auth.ttl) == ("u", 120.0)
        assert config.egress["out"].options.path == []

    def test_problems_have_lines(self, folder: Path) -> None:
        text = """\
[ingress.a]
kind = "prob"
[ingress.b]
path = 5
[ingress.c]
kind = "probe"
pth = "x"
rate = 0
poll = "1 h"
format = "json"
auth = { passwort = "x", password = 1234 }
[ingress."d/e"]
kind = "probe"
[ingress.f]
kind = "probe"
path = "x"
format = "csv"
follow = true
id = "x"
[ingress.g]
kind = "probe"
path = "x"
target = "nonsense"
[egress]
x = 1
[egress.y]
kind = 3
"""
        assert _problems(folder, APP + text) == [
            "FILE:3: ingress.a.kind: there is no ingress kind 'prob'; did you mean 'probe'?",
            "FILE:4: ingress.b.kind: required: expected the name of a kind (file, generator, http, probe), but it is missing",
            "FILE:8: ingress.c.pth: no such setting; did you mean 'path'?",
            "FILE:6: ingress.c.path: required, but missing: expected a text",
            'FILE:11: ingress.c.format: expected "jsonl" or "csv", got \'json\'; did you mean "jsonl"?',
            "FILE:9: ingress.c.rate: expected a number > 0.0, got 0",
            "FILE:10: ingress.c.poll: expected 10 ms to 1 min, got '1 h'",
            "FILE:12: ingress.c.auth.passwort: no such setting; did you mean 'password'?",
            "FILE:12: ingress.c.auth.user: required, but missing: expected a text",
            "FILE:12: ingress.c.auth.password: expected a text, got <redacted>",
            "FILE:13: ingress.d/e: expected a name of 1 to 64 letters, digits, '_' or '-'",
            "FILE:19: ingress.f.follow: not possible with format csv",
            "FILE:20: ingress.f.id: expected 'target' beside it; without a target a router of the application picks the address",
            (
                "FILE:24: ingress.g.target: function type 'nonsense': expected 'namespace/name' (one slash, printable, no colon or asterisk), "
                "as in 'shop/cart'"
            ),
            "FILE:26: egress.x: expected a table [egress.x], got 1",
            "FILE:28: egress.y.kind: required: expected the name of a kind (file, http, probe, stdout, stream, webhook), but got 3",
        ]

    def test_the_kind_of_an_egress_checks_the_number_of_shards(self, folder: Path) -> None:
        text = APP + '[egress.out]\nkind = "probe"\npath = ["a"]'
        assert _load(folder, text, "shards=1").egress["out"].options.path == [str(folder / "a")]
        assert _problems(folder, text) == ["FILE:2: egress.out: expected one path per shard"]

    def test_names_in_the_environment_are_capitals(self, folder: Path) -> None:
        config = _load(folder, PROBE, "ingress.Flights-1.rate=7", SHARDFUN_INGRESS__FLIGHTS_1__PARTITION_BY="5")
        assert config.ingress["Flights-1"].options.partition_by == "5"
        assert config.ingress["Flights-1"].options.rate == 7

    def test_to_dict_and_back_through_cbor(self, folder: Path) -> None:
        text = PROBE + 'rate = 5\ntags = ["x"]\nauth = { user = "u" }\n[egress.out]\nkind = "probe"\n[log]\nfile = "x.log"'
        config = _load(folder, text)
        plain = cbor2.loads(cbor2.dumps(config.to_dict()))
        assert Config.from_dict(plain) == config
        plain["ingress"]["Flights-1"]["options"]["rate"] = "fast"
        with pytest.raises(ConfigurationError, match="same version"):
            Config.from_dict(plain)


def test_from_dict_refuses_what_did_not_come_from_to_dict() -> None:
    with pytest.raises(ConfigurationError, match="same version"):
        Config.from_dict({"app": "a:b"})


def test_from_a_mapping(tmp_path: Path) -> None:
    settings = {"app": "a:b", "checkpoint": {"interval": "1 s"}}
    config = config_from_mapping(settings, name="test", directory=tmp_path, overrides=["checkpoint.timeout=9 s"])
    assert (config.name, config.checkpoint.interval_s, config.checkpoint.timeout_s) == ("test", 1, 9)
    assert config.data_dir == tmp_path / "data" / "test"
    assert settings == {"app": "a:b", "checkpoint": {"interval": "1 s"}}
    with pytest.raises(ConfigurationError, match=r"^test: shards: expected"):
        config_from_mapping({"app": "a:b", "shards": 0}, name="test", directory=tmp_path)


def test_made_by_hand_checks_across_settings_run() -> None:
    with pytest.raises(ConfigurationError, match="buffer_frames"):
        MeshConfig(window_frames=30)


class TestHttp:
    @pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:8484", "localhost:80"])
    def test_loopback_needs_no_token(self, folder: Path, listen: str) -> None:
        assert _load(folder, f'{APP}[http]\nlisten = "{listen}"\n').http is not None

    def test_without_the_section_there_is_no_door(self, folder: Path) -> None:
        assert _load(folder, APP).http is None

    @pytest.mark.parametrize("listen", ["0.0.0.0:8484", "[::]:8484", "192.0.2.1:8484"])
    def test_beyond_loopback_a_token_is_needed(self, folder: Path, listen: str) -> None:
        (problem,) = _problems(folder, f'{APP}[http]\nlisten = "{listen}"\n')
        assert "http.listen: expected a token_file beside an address beyond loopback" in problem
        assert _load(folder, f'{APP}[http]\nlisten = "{listen}"\ntoken_file = "t"\n').http is not None

    @pytest.mark.parametrize("listen", ["8484", "example.org:80", "127.0.0.1", "127.0.0.1:99999", "::1:80", "300.1.1.1:80", ""])
    def test_a_listen_address_is_an_address_and_a_port(self, folder: Path, listen: str) -> None:
        (problem,) = _problems(folder, f'{APP}[http]\nlisten = "{listen}"\n')
        assert "http.listen: expected an address and a port" in problem

    def test_certificate_and_key_belong_together(self, folder: Path) -> None:
        (problem,) = _problems(folder, f'{APP}[http]\ntls_certificate = "c.pem"\n')
        assert "http.tls_key: required: a certificate and its key belong together" in problem
