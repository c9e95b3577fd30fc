"""What makes two runs the same run."""

import assay
from assay.config import code_digest


def test_a_study_keeps_its_identity_when_another_one_changes(tmp_path, monkeypatch):
    """And when the code does that supervises or reports; not when the engine does."""
    for name in ("__init__.py", "studies/one/task.py", "studies/two/task.py", "runs/watch.py", "engine/train.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(assay, "__file__", str(tmp_path / "__init__.py"))

    def digest() -> str:
        code_digest.cache_clear()
        return code_digest("one")

    before = digest()
    for name in ("studies/two/task.py", "runs/watch.py"):
        (tmp_path / name).write_text("changed")
        assert digest() == before, name
    for name in ("studies/one/task.py", "engine/train.py"):
        (tmp_path / name).write_text("changed")
        assert digest() != before, name
        before = digest()
    code_digest.cache_clear()
