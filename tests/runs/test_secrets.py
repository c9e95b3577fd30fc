"""No secret is recorded: of a command, of parameters, of changed code, of what a scheduler says; all else is shown."""

import time

import pytest

from assay.runs.execute import scheduler_job
from assay.runs.masking import masked, masked_facts
from assay.runs.store import RunFolder


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

    @pytest.mark.parametrize(
        "facts",
        [
            {"class_token": "learned", "eos_token": "</s>", "label_key": "volumes/labels/neuron_ids_v2"},
            {"split-key": ["subject", "session1"], "checkpoint_key": "resnet50", "sort_key": {"by": "time"}},
        ],
    )
    def test_a_parameter_that_is_a_token_or_a_key_of_something_else_is_shown(self, facts):
        assert masked_facts(facts) == facts

    @pytest.mark.parametrize(
        "facts",
        [
            {"hf_token": "hf_kQ3rT9uVw2xYzAbCdEfG"},
            {"tracker_key": ["0f8fad5bd9cb469fa165"]},
            {"tracker_token": "550e8400-e29b-41d4-a716-446655440000"},
            {"access_key": "short"},
            {"auth-token": "short"},
            {"private_key": "line"},
        ],
    )
    def test_a_token_or_a_key_that_gives_access_is_hidden(self, facts):
        assert masked_facts(facts) == dict.fromkeys(facts, "***")

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


def test_the_schedulers_words_about_the_job_are_kept_without_secrets():
    words = {"SLURM_JOB_ID": "7", "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_TOKEN": "abc", "OTHER": "x"}
    job = scheduler_job({**words, "SLURMD_NODENAME": "n3"})
    assert (job.scheduler, job.id, job.node) == ("slurm", "7", "n3")
    assert job.raw["SLURM_JOB_PARTITION"] == "gpu" and "OTHER" not in job.raw and "abc" not in job.raw.values()
    assert scheduler_job({"LSB_JOBID": "8", "LSB_QUEUE": "long"}).raw == {"LSB_JOBID": "8", "LSB_QUEUE": "long"}
    assert scheduler_job({}) is None
