"""What run.json says about a run: code, data, machine; nothing secret, and nothing that keeps the run from starting."""

import hashlib
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from assay.runs import provenance
from assay.runs.execute import scheduler_job
from assay.runs.provenance import describe, hardware, masked, masked_facts
from assay.runs.record import Run, to_json
from assay.runs.store import RunFolder

COMMAND = ["python", "train.py"]


class Repository:
    """A fresh git repository with one commit; `run` is where its run is recorded."""

    def __init__(self, root: Path) -> None:
        self.root, self.run = root, root / "runs" / "asl" / "deep" / "3"
        self.git("init", "-q")
        self.write("train.py", "print(1)\n")
        self.commit()

    def git(self, *arguments: str) -> str:
        """What git says to a command that must succeed."""
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def write(self, name: str, content: str) -> None:
        """Write a file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def commit(self) -> str:
        """Commit everything; its number."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")
        return self.git("rev-parse", "HEAD").strip()

    def describe(self, *command: str) -> Run:
        """The run of a command given in the root."""
        return describe(self.run, command or COMMAND, self.root)

    def diff(self) -> str:
        """What was kept of the changes."""
        return (self.run / "source.diff").read_text()


@pytest.fixture
def repository(tmp_path) -> Repository:
    """A repository that the test may change."""
    root = tmp_path / "project"
    root.mkdir()
    return Repository(root)


class TestSource:
    def test_a_clean_tree_is_its_commit(self, repository):
        run = repository.describe()
        assert (run.commit, run.dirty) == (repository.git("rev-parse", "HEAD").strip(), False)
        assert (run.study, run.arm, run.seed) == ("asl", "deep", "3")
        assert not (repository.run / "source.diff").exists()

    def test_a_changed_tree_is_commit_and_patch(self, repository, tmp_path):
        repository.write("train.py", "print(2)\n")
        assert repository.describe().dirty
        patch = repository.run / "source.diff"
        repository.git("checkout", "-q", "train.py")
        repository.git("apply", str(patch))
        assert (repository.root / "train.py").read_text() == "print(2)\n"

    def test_a_binary_change_is_in_the_patch(self, repository):
        (repository.root / "weights").write_bytes(bytes(256))
        repository.commit()
        (repository.root / "weights").write_bytes(bytes(range(256)))
        repository.describe()
        assert "GIT binary patch" in repository.diff()

    def test_an_untracked_file_is_a_change_and_kept_by_name_only(self, repository):
        repository.write("loss.py", "weight = 3\n")
        assert repository.describe().dirty
        assert repository.diff() == "# untracked, not in this patch: loss.py\n"

    def test_records_of_runs_are_no_change(self, repository):
        RunFolder(repository.run).write_run(Run(study="", arm="", seed=""))
        RunFolder(repository.run.parent / "4").write_run(Run(study="", arm="", seed=""))
        assert not repository.describe().dirty

    def test_a_run_just_below_the_root_leaves_the_code_to_be_seen(self, repository):
        repository.run = repository.root / "run"
        RunFolder(repository.run).write_run(Run(study="", arm="", seed=""))
        assert not repository.describe().dirty
        repository.write("train.py", "print(2)\n")
        assert repository.describe().dirty

    def test_code_changed_in_a_folder_above_is_seen(self, repository):
        repository.write("studies/asl/params.yaml", "seed: 1\n")
        commit = repository.commit()
        repository.write("train.py", "print(2)\n")
        run = describe(repository.run, COMMAND, repository.root / "studies" / "asl")
        assert (run.commit, run.dirty, run.params) == (commit, True, {"seed": 1})

    def test_a_patch_of_an_earlier_attempt_goes_when_the_tree_is_clean_again(self, repository):
        repository.write("train.py", "print(2)\n")
        repository.describe()
        repository.commit()
        repository.describe()
        assert not (repository.run / "source.diff").exists()

    def test_a_patch_beyond_the_limit_is_cut_and_says_so(self, repository, monkeypatch):
        monkeypatch.setattr(provenance, "DIFF_LIMIT", 1000)
        repository.write("train.py", "x = 1\n" * 100_000)
        assert repository.describe().dirty
        assert repository.diff().startswith("# cut after 1000 bytes: it does not apply\ndiff --git a/train.py")
        assert len(repository.diff()) < 1100

    def test_a_repository_without_a_commit_has_none(self, tmp_path):
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        (tmp_path / "train.py").write_text("")
        run = describe(tmp_path / "runs" / "a" / "b" / "0", COMMAND, tmp_path)
        assert (run.commit, run.dirty) == (None, True)

    def test_no_repository_is_no_commit(self, tmp_path):
        run = describe(tmp_path / "run", COMMAND, tmp_path)
        assert (run.commit, run.dirty) == (None, False)

    def test_without_git_there_is_no_commit(self, repository, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        assert repository.describe().commit is None

    def test_a_git_that_hangs_is_given_up_with_what_it_started(self, repository, monkeypatch, tmp_path):
        (tmp_path / "git").write_text("#!/bin/sh\nsleep 60\n")
        (tmp_path / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(provenance, "GIT_WITHIN_S", 0.2)
        begun = time.monotonic()
        assert repository.describe().commit is None
        assert time.monotonic() - begun < 5


class TestPipelineAndData:
    def test_the_stages_of_a_pipeline_are_those_of_dvc_yaml_in_order(self, repository):
        repository.write("dvc.yaml", "stages:\n  train: {cmd: x}\n  apply: {cmd: y}\n")
        assert repository.describe("/venv/bin/dvc", "repro").stages == ["train", "apply"]
        assert repository.describe("python", "dvc.py").stages == []

    def test_parameters_are_json_values(self, repository):
        repository.write("params.yaml", "lr: 3e-4\nday: 2020-01-02\n3: null\n")
        assert repository.describe().params == {"lr": 3e-4, "day": "2020-01-02", "3": None}

    @pytest.mark.parametrize("content", ["a: [", "- 1", "", "a: &x [*x]", "a: 1\na: 2", "\x00"])
    def test_damaged_parameters_and_pipelines_are_for_the_command_to_refuse(self, repository, content):
        repository.write("params.yaml", content)
        repository.write("dvc.yaml", content)
        run = repository.describe("dvc", "repro")
        assert (run.params, run.stages) == (None, [])

    def test_data_and_lock_are_digests_that_follow_the_content(self, repository):
        before = repository.describe()
        assert (before.data, before.lock) == (None, None)
        digests = set()
        for content in ("one", "two"):
            repository.write("dvc.lock", content)
            repository.write("requirements/cpu.txt", content)
            run = repository.describe()
            digests |= {run.data, run.lock}
        assert {len(digest) for digest in digests} == {64}
        assert len(digests) == 4

    def test_a_digest_is_over_names_and_contents(self, repository):
        repository.write("dvc.lock", "one")
        content = b"dvc.lock\0" + hashlib.sha256(b"one").digest()
        assert repository.describe().data == hashlib.sha256(content).hexdigest()

    def test_a_lock_at_the_root_counts_for_a_study_below(self, repository):
        repository.write("uv.lock", "one")
        repository.write("studies/asl/x", "")
        below = describe(repository.run, COMMAND, repository.root / "studies" / "asl")
        assert below.lock == repository.describe().lock is not None

    def test_a_lock_with_a_name_that_is_no_text_counts(self, repository):
        repository.write(os.fsdecode(b"requirements/\xff.txt"), "one")
        assert repository.describe().lock is not None

    def test_the_image_is_named_by_the_environment(self, repository, monkeypatch):
        monkeypatch.delenv(provenance.IMAGE_DIGEST, raising=False)
        assert repository.describe().image is None
        monkeypatch.setenv(provenance.IMAGE_DIGEST, "sha256:abc")
        assert repository.describe().image == "sha256:abc"


class TestSecrets:
    @pytest.mark.parametrize(
        ("command", "shown"),
        [
            (["x", "--token", "hunter2"], ["x", "--token", "***"]),
            (["x", "--hf-token=hunter2 and 3"], ["x", "--hf-token=***"]),
            (["env", "WANDB_API_KEY=hunter2", "x"], ["env", "WANDB_API_KEY=***", "x"]),
            (["env", "PASSWORD=hunter2 hunter3"], ["env", "PASSWORD=***"]),
            (["x", "++logger.apikey=hunter2"], ["x", "++logger.apikey=***"]),
            (["sh", "-c", "cd a; KEY_KEY='hunter 2' x --password \"hunter 2\" y"], None),
            (["sh", "-c", "x --db-password hunter2 -v"], ["sh", "-c", "x --db-password *** -v"]),
            (["curl", "-H", "Authorization: Bearer hunter2", "x"], ["curl", "-H", "Authorization: ***", "x"]),
            (["sh", "-c", "curl -H 'Authorization: Basic hunter2' x"], ["sh", "-c", "curl -H 'Authorization: ***' x"]),
            (["x", "--auth", "hunter2"], ["x", "--auth", "***"]),
            (["x", "--header", "X: bearer hunter2"], ["x", "--header", "X: bearer ***"]),
            (["curl", "-u", "me:hunter2", "x"], ["curl", "-u", "me:***", "x"]),
            (["sh", "-c", "curl --user me:hunter2 x"], ["sh", "-c", "curl --user me:*** x"]),
            (["git", "clone", "https://me:hunter2@host/x"], ["git", "clone", "https://***@host/x"]),
            (["git", "clone", "https://me:hun/hunter2@host/x"], ["git", "clone", "https://***@host/x"]),
            (["git", "clone", "https://me:hun@hunter2@host/x"], ["git", "clone", "https://***@host/x"]),
            (["env", "MYSQL_PWD=hunter2", "x"], ["env", "MYSQL_PWD=***", "x"]),
            (["x", "--db-pwd", "hunter2"], ["x", "--db-pwd", "***"]),
        ],
    )
    def test_what_follows_a_secret_name_is_hidden(self, command, shown):
        assert "hunter" not in str(masked(command))
        assert shown is None or masked(command) == shown

    @pytest.mark.parametrize(
        ("header", "shown"),
        [
            ("PRIVATE-TOKEN: hunter2 hunter3", "PRIVATE-TOKEN: ***"),
            ("X-Api-Key: hunter2", "X-Api-Key: ***"),
            ("X-Auth-Token:hunter2", "X-Auth-Token:***"),
            ("x-api-key:hunter2", "x-api-key:***"),
            ("-HX-Auth-Token: hunter2 hunter3", "-HX-Auth-Token: ***"),
            ("--header=PRIVATE-TOKEN: hunter2 hunter3", "--header=PRIVATE-TOKEN: ***"),
        ],
    )
    def test_the_value_of_a_secret_header_is_hidden(self, header, shown):
        assert masked(["curl", "-H", header, "x"]) == ["curl", "-H", shown, "x"]
        assert masked(["sh", "-c", f"curl -H '{header}' x"]) == ["sh", "-c", f"curl -H '{shown}' x"]

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ('{"password": "hunter2", "lr": 1}', '{"password": ***, "lr": 1}'),
            (r'{"password":"hun\"hunter2","lr":1}', '{"password":***,"lr":1}'),
            ("--config={'token': 'hunter2', 'lr': 1}", "--config={'token': ***, 'lr': 1}"),
            ("logger={api_key:hunter2,lr:1}", "logger={api_key:***,lr:1}"),
            ('{"auth": {"user": "hunter2"}, "secret": ["hunter2"]}', '{"auth": ***, "secret": ***}'),
            (
                r'x --json "{\"password\": \"hunter2 hunter3\", \"lr\": 1}"',
                r'x --json "{\"password\": ***, \"lr\": 1}"',
            ),
            ("lr: 1\npassword: hunter2 hunter3\nseed: 2", "lr: 1\npassword: ***\nseed: 2"),
            ("logger.api_key: hunter2", "logger.api_key: ***"),
            ("echo password: hunter2 > file", "echo password: *** > file"),
        ],
    )
    def test_what_a_mapping_has_under_a_secret_name_is_hidden(self, text, shown):
        assert masked(["x", text]) == ["x", shown]

    @pytest.mark.parametrize(
        "command",
        [
            ["x", "--tokenizer: x", "author: me", "key: value", "--set", "model.key_dim: 4", "pwd: x", "PWD=/x"],
            ["x", "{tokenizer: x, author: me, key: 1, model.key_dim: 4}", '{"tokenizer": "x", "tokens": 5}'],
            ["apptainer", "exec", "--pwd", "/x", "--bind", "/run/auth:/auth", "gunicorn", "app.auth:create"],
            ["x", "https://host:8080/a@b", "git+https://host/x.git@v1", "s3://bucket/a:b@c", "http://[::1]:80/a@b"],
            ["x", "--tokens", "512", "--tokenizer=bpe", "--max-tokens=3", "monkey=1", "https://host/a?mail=b@c"],
            ["x", "--no-password", "--verbose"],
            ["python", "-u", "train.py", "--author", "me", "--authors=we", "-m", "a:b"],
            ["dvc", "exp", "run", "-S", "train.lr=1e-3"],
        ],
    )
    def test_everything_else_is_shown(self, command):
        assert masked(command) == command

    def test_facts_are_hidden_by_their_name_and_as_a_command_would_be(self):
        facts = {"api_key": "hunter2", "auth": {"user": "hunter2"}, "data": ["s3://me:hunter2@host"], "token": 3}
        shown = {"api_key": "***", "auth": "***", "data": ["s3://***@host"], "token": 3}
        assert masked_facts(facts) == shown

    def test_secrets_in_added_lines_are_hidden_and_code_that_handles_some_is_not(self, repository):
        code = "token = read_token(path)\nmodel(token=tokens[0], key='a')\n"
        repository.write("train.py", f"{code}login(token='hunter2')\n")
        repository.write("x.env", "")
        repository.git("add", "-A")
        repository.write("x.env", "export HF_TOKEN=hunter2\npassword: hunter2\nX=https://me:hunter2@host\n")
        repository.describe()
        said = repository.diff()
        assert "hunter2" not in said and said.startswith("# secrets in added lines are ***\n")
        assert all(f"+{line}\n" in said for line in [*code.splitlines(), "login(token='***')", "export HF_TOKEN=***"])
        repository.git("stash")
        repository.git("apply", str(repository.run / "source.diff"))

    def test_an_argument_of_a_megabyte_takes_no_time(self):
        begun = time.monotonic()
        assert masked(["x", "a-" * 500_000]) == ["x", "a-" * 500_000]
        assert time.monotonic() - begun < 1

    def test_no_secret_of_environment_parameters_or_command_is_recorded(self, repository, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hunter2")
        repository.write("params.yaml", "logger:\n  - api_key: hunter2\n    tokens: 512\n")
        run = repository.describe("x", "--token", "hunter2")
        assert run.params == {"logger": [{"api_key": "***", "tokens": 512}]}
        RunFolder(repository.run).write_run(run)
        assert not any("hunter2" in path.read_text() for path in repository.run.iterdir())


class TestMachine:
    def test_the_machine_is_described_in_json_values(self):
        found = hardware()
        assert found["host"] == os.uname().nodename
        assert found["cores"] == len(os.sched_getaffinity(0))
        assert found["memory"] > 2**28
        assert json.loads(json.dumps(found)) == found

    def test_gpus_are_listed_with_name_driver_and_memory(self, monkeypatch):
        class NVMLError(Exception):
            pass

        def memory(handle):
            if handle == 1:
                raise NVMLError
            return types.SimpleNamespace(total=80 * 2**30)

        driver = types.ModuleType("pynvml")
        driver.NVMLError = NVMLError
        driver.nvmlInit = lambda: None
        driver.nvmlSystemGetDriverVersion = lambda: "570.1"
        driver.nvmlDeviceGetCount = lambda: 2
        driver.nvmlDeviceGetHandleByIndex = lambda index: index
        driver.nvmlDeviceGetName = "GPU {}".format
        driver.nvmlDeviceGetMemoryInfo = memory
        monkeypatch.setitem(sys.modules, "pynvml", driver)
        monkeypatch.setattr(provenance, "DRIVERS", (Path("/proc"),))
        assert hardware()["gpus"] == [
            {"name": "GPU 0", "driver": "570.1", "memory": 80 * 2**30},
            {"name": "GPU 1", "driver": "570.1"},
        ]

    def test_a_driver_file_without_a_driver_is_no_gpu(self, monkeypatch):
        pynvml = pytest.importorskip("pynvml")

        def missing():
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

        monkeypatch.setattr(pynvml, "nvmlInit", missing)
        monkeypatch.setattr(provenance, "DRIVERS", (Path("/proc"),))
        assert hardware()["gpus"] == []

    def test_versions_are_known_without_importing_the_packages(self, repository):
        code = (
            "import json, sys; from pathlib import Path; from assay.runs.provenance import describe;"
            "run = describe(Path('runs/a/b/0'), ['x'], Path());"
            "print(json.dumps([run.versions, sorted({'torch', 'numpy', 'dvc'} & set(sys.modules))]))"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        said = subprocess.run(
            [sys.executable, "-c", code], cwd=repository.root, env=environment, check=True, capture_output=True
        ).stdout
        versions, imported = json.loads(said)
        assert versions["python"] == sys.version.split()[0]
        assert {"assay", "torch", "numpy", "dvc"} <= versions.keys()
        assert imported == []


def test_a_small_repository_is_described_in_little_time(repository):
    repository.write("train.py", "print(2)\n")
    seconds = []
    for _ in range(5):
        begun = time.monotonic()
        run = repository.describe()
        seconds.append(time.monotonic() - begun)
    assert min(seconds) < 0.06
    assert to_json(run)["dirty"] is True


def test_the_schedulers_words_about_the_job_are_kept_without_secrets():
    words = {"SLURM_JOB_ID": "7", "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_TOKEN": "abc", "OTHER": "x"}
    job = scheduler_job({**words, "SLURMD_NODENAME": "n3"})
    assert (job.scheduler, job.id, job.node) == ("slurm", "7", "n3")
    assert job.raw["SLURM_JOB_PARTITION"] == "gpu" and "OTHER" not in job.raw and "abc" not in job.raw.values()
    assert scheduler_job({"LSB_JOBID": "8", "LSB_QUEUE": "long"}).raw == {"LSB_JOBID": "8", "LSB_QUEUE": "long"}
    assert scheduler_job({}) is None
