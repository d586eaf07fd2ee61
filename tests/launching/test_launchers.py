"""What is started for a stage, by which settings; and the settings that are refused."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from osmf_pipelines.resources.launchers import (
    Job,
    Launch,
    launcher,
    parse_cancel_command,
    parse_launch_command,
    prepare_launch,
    read_hostfile,
)
from osmf_pipelines.settings import Settings

PASSWORD = "s3cret"


def job(output: Path) -> Job:
    return Job("group_dpo", ["--recipe", "tiny", "--data", "/exports/1"], output, "run-7")


def prepared(tmp_path: Path, **fields: object) -> Launch:
    settings = Settings(home=tmp_path, **fields)  # type: ignore[arg-type]
    return prepare_launch(settings, job(tmp_path), is_distributed=True)


def split(command: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that `env` sets, and the command after them."""
    assert command[0] == "env"
    variables = [word for word in command[1:] if "=" in word and not word.startswith("-")]
    return dict(word.split("=", 1) for word in variables), command[1 + len(variables) :]


def test_here_everything_is_in_the_environment(tmp_path: Path) -> None:
    launch = prepared(tmp_path, num_processes=1)
    assert " ".join(launch.commands[0]) == (
        f"{sys.executable} -m osmf_models.stages.group_dpo --recipe tiny --data /exports/1 --output {tmp_path}"
    )
    assert launch.environment["MLFLOW_RUN_ID"] == "run-7"
    assert not launch.is_elsewhere


def test_threads_are_the_cores_that_may_be_used(tmp_path: Path) -> None:
    """Threads of one core that wait for one another by spinning make a training many times slower."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        assert prepared(tmp_path, num_processes=1).environment["OMP_NUM_THREADS"] == "1"
    finally:
        os.sched_setaffinity(0, usable)
    assert prepared(tmp_path, num_processes=1).environment["OMP_NUM_THREADS"] == str(len(usable))


def test_only_training_goes_elsewhere(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, launch_command="sh {command}")
    launch = prepare_launch(settings, job(tmp_path), is_distributed=False)
    assert launch.commands[0][0] == sys.executable


def test_variables_travel_in_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_IB_HCA", "mlx5")
    monkeypatch.setenv("MLFLOW_RUN_ID", "of another run")
    uri = f"http://me:{PASSWORD}@tracking:5000"
    launch = prepared(
        tmp_path, num_processes=1, launch_command="env {command}", mlflow_uri=uri, launch_python="python3"
    )
    variables, command = split(list(launch.commands[0][1:]))
    assert command[:3] == ["python3", "-m", "osmf_models.stages.group_dpo"]
    told = {name: variables[name] for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "HF_HUB_OFFLINE")}
    assert told == {"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": "run-7", "HF_HUB_OFFLINE": "1"}
    assert variables["NCCL_IB_HCA"] == "mlx5"
    assert not any(name.startswith("OSMF") for name in variables)


def test_placeholders_and_cancelling(tmp_path: Path) -> None:
    launch = prepared(
        tmp_path,
        num_processes=3,
        launch_command="env {job} {data} {output} {num_processes} {num_nodes} {command}",
        cancel_command="env {job}",
    )
    name = launch.cancels[0][1]
    assert name.startswith("osmf-group-dpo-")
    assert list(launch.commands[0][1:6]) == [name, "/exports/1", str(tmp_path), "3", "1"]
    assert "osmf_models.training.local_launch" in launch.commands[0]


def test_name_is_the_runs_and_stays(tmp_path: Path) -> None:
    names = [job(tmp_path / name).name for name in ("one", "one", "two")]
    assert names[0] == names[1] != names[2]


def test_several_machines_run_one_command_and_meet(tmp_path: Path) -> None:
    fields = {"num_nodes": 2, "rendezvous": "trainer-1:29500", "num_processes": 4}
    launch = prepared(tmp_path, launch_command="env {command}", **fields)
    variables, command = split(list(launch.commands[0][1:]))
    text = " ".join(command)
    assert "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint trainer-1:29500 --rdzv-id osmf-group-dpo-" in text
    assert "--nproc-per-node 4" in text
    # The loopback device would reach no other machine.
    assert variables["GLOO_SOCKET_IFNAME"] == variables["NCCL_SOCKET_IFNAME"] == ""

    here = prepared(tmp_path, **fields)
    join = tmp_path / "join.sh"
    assert shlex.split(join.read_text())[-len(command) :] == here.commands[0] == command
    assert stat.S_IMODE(join.stat().st_mode) == 0o700
    assert "join.sh" in here.note


def test_each_host_of_a_hostfile_is_one_node(tmp_path: Path, ssh: Path) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# two\nme@trainer-1 slots=4\n\ntrainer-2   slots=2  # fewer\n")
    assert read_hostfile(hostfile) == {"me@trainer-1": 4, "trainer-2": 2}
    launch = prepared(tmp_path, hostfile=hostfile)
    assert [(command[0], command[-2]) for command in launch.commands] == [
        ("ssh", "me@trainer-1"),
        ("ssh", "trainer-2"),
    ]
    for rank, (slots, command) in enumerate(zip((4, 2), launch.commands, strict=True)):
        assert f"--nnodes 2 --node-rank {rank} --master-addr trainer-1 --master-port 29500" in command[-1]
        assert f"--nproc-per-node {slots} " in command[-1]
    assert len(launch.cancels) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "OSMF_HOSTFILE|there is no file .*: write one with a line"),
        ("trainer-1 slots=4\ntrainer-2\n", "line 2 of .* is 'trainer-2': write `name slots=4`"),
        ("trainer-1 slots=0\n", "slots being at least 1"),
        ("-oProxyCommand=id slots=1\n", "line 1 of"),
        ("a slots=1\na slots=2\n", "line 2 of .* names a again"),
        ("# nobody\n", "names no host"),
    ],
)
def test_bad_hostfile_is_refused_at_start(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "hosts"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValidationError, match=told) as caught:
        Settings(home=tmp_path, hostfile=path)
    assert [error["loc"] for error in caught.value.errors()] == [("hostfile",)]


@pytest.mark.parametrize(
    ("fields", "wrong", "told"),
    [
        ({"launch_command": "srun --nodes 2"}, "launch_command", "lacks {command}"),
        ({"launch_command": "srun {command} {where}"}, "launch_command", "{where} is no placeholder"),
        ({"launch_command": "srun {command}", "home": Path("here")}, "launch_command", "an absolute OSMF_HOME"),
        ({"cancel_command": "scancel {job}"}, "cancel_command", "OSMF_LAUNCH_COMMAND starts, which is not set"),
        (
            {"launch_command": "srun {command}", "cancel_command": "scancel {command}"},
            "cancel_command",
            "{command} is no placeholder here",
        ),
        ({"num_nodes": 2}, "num_nodes", "set OSMF_NUM_NODES and OSMF_RENDEZVOUS"),
        ({"rendezvous": "trainer-1:29500"}, "num_nodes", "set OSMF_NUM_NODES and OSMF_RENDEZVOUS"),
        ({"num_nodes": 2, "rendezvous": "trainer-1"}, "rendezvous", "must be host:port"),
        (
            {"heartbeat_warning_seconds": 60, "heartbeat_limit_seconds": 30},
            "heartbeat_limit_seconds",
            "below OSMF_HEARTBEAT_WARNING_SECONDS",
        ),
    ],
)
def test_bad_setting_is_named_with_its_remedy(tmp_path: Path, fields: dict[str, object], wrong: str, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{"home": tmp_path, **fields})  # type: ignore[arg-type]
    assert [error["loc"] for error in caught.value.errors()] == [(wrong,)]
    assert told in caught.value.errors()[0]["msg"]


def test_hostfile_excludes_the_other_ways(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("trainer-1 slots=4\n")
    with pytest.raises(ValidationError, match="unset this one or OSMF_HOSTFILE"):
        Settings(home=tmp_path, hostfile=hosts, launch_command="srun {command}")
    with pytest.raises(ValidationError, match="the hostfile says how many"):
        Settings(home=tmp_path, hostfile=hosts, num_nodes=2, rendezvous="trainer-1:1")


def test_templates_of_the_documentation_are_accepted() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| [^|`]+ \| `([^`]*{command}[^`]*)` \| `([^`]*)` \|$", page, flags=re.MULTILINE)
    assert len(rows) == 4
    for start, cancel in rows:
        parse_launch_command(start)
        parse_cancel_command(cancel)


def test_missing_program_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^no-such-srun, which .* is not on this machine's PATH") as caught:
        prepared(tmp_path, launch_command="no-such-srun {command}", mlflow_uri=f"http://me:{PASSWORD}@tracking")
    assert PASSWORD not in str(caught.value)


def test_two_processes_leave_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    """torchrun makes a folder there for the logs of each run, unless it is told where they go."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [*launcher(2), "timeit", "-n", "1", "-r", "1", "pass"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("1 loop, best of 1") == 2
    assert list(tmp_path.iterdir()) == []
