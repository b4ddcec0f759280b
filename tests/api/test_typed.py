"""The types of the face are those that user code relies on; a mistake in a call is one for mypy, too."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_user_code_is_typed(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    config = tmp_path / "mypy.ini"  # none of the settings of this repository: what a user has
    config.write_text("[mypy]\nstrict = True\n[mypy-onnxruntime.*]\nignore_missing_imports = True\n")
    cache = f"--cache-dir={tmp_path / 'cache'}"
    arguments = [f"--config-file={config}", cache, "--follow-imports=silent", str(HERE / "typed_user.py")]
    output, errors, status = api.run(arguments)
    assert status == 0, output + errors
