"""A daemon elsewhere is reached through ssh alone, without questions."""

from pathlib import Path

import pytest

from assay.containers.tunnel import REMOTE, command, tunnel
from assay.errors import UserError


def stub(folder: Path, body: str) -> None:
    (folder / "ssh").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "ssh").chmod(0o755)


def test_a_daemon_of_this_machine_needs_no_tunnel():
    with tunnel("unix:///a/socket") as at:
        assert at == "unix:///a/socket"


def test_user_and_port_are_those_of_the_address():
    words = command("ssh://me@gpu:2222", Path("/l"))
    assert words[-6:] == ["-p", "2222", "-l", "me", "--", "gpu"]
    assert f"/l:{REMOTE}" in words and "BatchMode=yes" in words
    assert command("ssh://gpu", Path("/l"))[-2:] == ["--", "gpu"]


def test_a_host_that_looks_like_an_option_is_none():
    words = command("ssh://-oProxyCommand=evil", Path("/l"))
    assert words.index("--") == len(words) - 2


def test_it_waits_for_the_way_and_closes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stub(tmp_path, f'echo $$ >{tmp_path}/pid; sleep 0.2; touch "${{3%%:*}}"; exec sleep 100')
    with tunnel("ssh://me@gpu") as at:
        assert Path(at.removeprefix("unix://")).exists()
        pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(at.removeprefix("unix://")).parent.exists()


def test_ssh_that_does_not_get_through_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stub(tmp_path, "echo 'Permission denied (publickey).' >&2; exit 255")
    with pytest.raises(
        UserError, match=r"ssh://me@gpu is not reached \(Permission denied \(publickey\)\.\); ssh to it"
    ):
        tunnel("ssh://me@gpu").__enter__()


def test_a_machine_without_ssh_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ssh cannot be started"):
        tunnel("ssh://me@gpu").__enter__()
