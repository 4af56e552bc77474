"""Prompts tuned by MIPROv2, on a local server."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from stub_endpoint import stub_endpoint

from crystaljax.alloys.baselines.endpoint import EndpointConfig
from crystaljax.alloys.baselines.tuning import TuningConfig, element_count, tuned_prompt
from crystaljax.alloys.composition import read_candidate

ELEMENTS = ("Al", "Co", "Cr", "Ni")
EXAMPLES = [f"<BCC>Cr</BCC> <B2>AlNi</B2> <B2_Volume>{n}</B2_Volume>" for n in range(40, 50)]
RICH = "<BCC>CrCo</BCC> <B2>AlNi</B2> <B2_Volume>40</B2_Volume>"
POOR = "<BCC>Cr</BCC> <B2>CrNi</B2> <B2_Volume>40</B2_Volume>"


def test_the_metric() -> None:
    assert element_count(RICH, ELEMENTS) == 4
    assert element_count(f"First {POOR}, then\n{POOR}", ELEMENTS) == 2
    assert element_count(RICH, ("Al", "Ni")) == 0
    assert element_count("none", ELEMENTS) == 0


def test_too_few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crystaljax.alloys.baselines.tuning.dspy_module", lambda: None)
    with pytest.raises(ValueError, match="5 examples at least, not 2"):
        tuned_prompt(EndpointConfig(), EXAMPLES[:2], ELEMENTS)
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ValueError, match="set the environment variable NO_KEY"):
        tuned_prompt(EndpointConfig(model="any", key_variable="NO_KEY"), EXAMPLES, ELEMENTS)


@pytest.mark.skipif(find_spec("dspy") is None, reason="needs dspy")
@pytest.mark.slow
def test_the_better_instruction_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server proposes an instruction, and answers those who use it with more elements."""
    monkeypatch.setenv("STUB_KEY", "any")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DSPY_CACHEDIR", str(tmp_path))
    magic = "Use as many elements as you can."

    def respond(body: dict, n: int) -> str:
        system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
        if "[[ ## alloy ## ]]" in system:
            alloy = RICH if magic in system else POOR
            return f"[[ ## alloy ## ]]\n{alloy}\n\n[[ ## completed ## ]]"
        fields = {"proposed_instruction": magic}
        names = [part.split(" ## ]]")[0] for part in system.split("[[ ## ")[1:]]
        text = "".join(f"[[ ## {name} ## ]]\n{fields.get(name, 'x')}\n\n" for name in names)
        return text if names else last

    with stub_endpoint(respond) as stub:
        endpoint = EndpointConfig(stub.url, "stub", "STUB_KEY")
        prompt = tuned_prompt(endpoint, EXAMPLES, ELEMENTS, TuningConfig("light"))
    assert magic in prompt[0]["content"]
    assert [message["role"] for message in prompt][:: len(prompt) - 1] == ["system", "user"]
    assert "Al, Co, Cr, Ni" in prompt[-1]["content"]
    marked = f"[[ ## alloy ## ]]\n{RICH}\n\n[[ ## completed ## ]]"
    assert read_candidate(marked)[0] is not None
