"""What run.json says about a run: code, data, machine; and nothing keeps the run from starting."""

import hashlib
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from tests.runs.repository import COMMAND

from assay.runs import provenance
from assay.runs.provenance import describe, hardware
from assay.runs.record import Run, to_json
from assay.runs.store import RunFolder


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
