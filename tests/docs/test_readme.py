"""The README's code runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.data
@pytest.mark.slow
def test_the_code_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert len(blocks) == 5
    assert namespace["logits"].shape == (10, 500, 10)
    assert set(namespace["table"].system.values) == {"V4", "blocks.8"}
    assert "noise_correlation" in capsys.readouterr().out


def test_every_path_that_the_readme_names_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert "docs/design.md" in links
    assert [link for link in links if not (README.parent / link).exists()] == []
