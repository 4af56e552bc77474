"""Prompt templates: fields are filled in, and what is wrong with them is named."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.text.examples import Chat, Example
from crystaljax.text.prompts import PromptTemplate, load_template, template_names
from crystaljax.tokenizations.text.wyckoff import WyckoffText

TEMPLATE = PromptTemplate("t", "Make {formula}.", "{text}", "You {verb}.")
VALUES = {"formula": "TiO2", "text": "136\n...", "verb": "know"}


def test_prompt_and_example() -> None:
    assert TEMPLATE.prompt(VALUES) == "You know.\n\nMake TiO2.\n"
    assert TEMPLATE.example(VALUES) == Example("You know.\n\nMake TiO2.\n", "136\n...")
    assert TEMPLATE.fields == {"formula", "text", "verb"}
    assert TEMPLATE.prompt_fields == {"formula", "verb"}


def test_messages_and_chat() -> None:
    messages = (
        {"role": "system", "content": "You know."},
        {"role": "user", "content": "Make TiO2."},
    )
    assert TEMPLATE.messages(VALUES) == messages
    answer = {"role": "assistant", "content": "136\n..."}
    assert TEMPLATE.chat(VALUES) == Chat((*messages, answer))
    assert len(PromptTemplate("t", "u", "c").messages({})) == 1


def test_a_prompt_needs_no_completion() -> None:
    assert TEMPLATE.prompt({"formula": "TiO2", "verb": "know"})


@given(st.text(), st.text())
def test_values_are_taken_as_they_are(formula: str, text: str) -> None:
    """Braces in them too."""
    example = PromptTemplate("t", "{formula}", "{text}").example({"formula": formula, "text": text})
    assert example == Example(formula + "\n", text)


def test_formats_and_braces() -> None:
    template = PromptTemplate("t", "{{{x:.1f}}}", "")
    assert template.prompt({"x": 50.649}) == "{50.6}\n"
    with pytest.raises(ValueError, match="a value cannot be formatted as asked"):
        template.prompt({"x": "much"})


def test_clauses() -> None:
    """Any of them are said, in their order, and the prompt needs what they do."""
    template = PromptTemplate("t", "A{clauses} {c}:", "", "{s}", [" {a:.1f}", " {a} in {b}"])  # type: ignore[arg-type]
    assert template.prompt_fields == {"c", "s"}
    assert template.clause_fields == ({"a"}, {"a", "b"})
    assert template.n_clauses_min == 0
    values = {"a": 1.25, "b": "x", "c": "c", "s": "s"}
    expected = {(): "A c:", (0,): "A 1.2 c:", (1,): "A 1.25 in x c:", (1, 0): "A 1.2 1.25 in x c:"}
    for which, user in expected.items():
        said = template.saying(which)
        assert said.messages(values)[1]["content"] == user
        assert "b" in said.prompt_fields or 1 not in which
    with pytest.raises(ValueError, match="'t': its clauses are not chosen yet"):
        template.prompt(values)
    assert template.content["clauses"] == (" {a:.1f}", " {a} in {b}")
    assert PromptTemplate(**template.content) == template
    # Without clauses it is what it was before there were any.
    assert set(TEMPLATE.content) == {"name", "user", "completion", "system"}
    assert PromptTemplate("t", "{{clauses}}", "").saying(()).prompt({}) == "{clauses}\n"
    assert PromptTemplate("t", "A{clauses}", "", clauses=(" {a}",)).n_clauses_min == 1


@pytest.mark.parametrize(
    ("user", "clauses", "message"),
    [
        ("A", ("{a}",), "user must have {clauses}, once, where"),
        ("{clauses}{clauses}", ("{a}",), "user must have {clauses}, once"),
        ("{{clauses}}", ("{a}",), "user must have {clauses}, once"),
        ("{clauses}", ("{clauses}",), "user must have {clauses}, once"),
        ("{clauses}", (), "stands for clauses, and it has none"),
        ("{clauses}", ("some",), "clause 1: 'some' has no field"),
        ("{clauses}", ("{a}", "{b"), "clause 2: "),
    ],
)
def test_malformed_clauses(user: str, clauses: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptTemplate("t", user, "", clauses=clauses)


def test_a_missing_field() -> None:
    with pytest.raises(ValueError, match=r"'t': the field 'text' is missing; .* 'formula', 'verb'"):
        TEMPLATE.example({"formula": "TiO2", "verb": "know"})


@pytest.mark.parametrize("user", ["{", "a } b", "{}", "{a.b}", "{a[0]}", "{0}", "{a:{b}}"])
def test_malformed_texts(user: str) -> None:
    with pytest.raises(ValueError, match="prompt template 't': user: "):
        PromptTemplate("t", user, "")


def test_the_alloy_triple() -> None:
    values = {"elements": "Nb, Mo", "bcc": "Nb67Mo33", "b2": "ZrTiRu2", "volume": 50.6}
    example = load_template("alloy_triple").example(values)
    assert example.completion == (
        "<BCC>Nb67Mo33</BCC> <B2>ZrTiRu2</B2> <B2_Volume>50.6</B2_Volume>"
    )
    assert "Nb, Mo" in example.prompt


def test_the_crystal() -> None:
    text = "136\n4.594 2.959\nTi 2a\nO 4f 0.3048"
    example = load_template("crystal_of_formula").example({"formula": "TiO2", "text": text})
    assert WyckoffText().decode([example.completion]).ok.all()
    assert "TiO2" in example.prompt


def test_shipped_templates() -> None:
    assert {"alloy_triple", "crystal_of_formula"} <= set(template_names())
    for name in template_names():
        template = load_template(name)
        assert template.name == name
        assert template.user == template.user.strip()
        template = template.saying(range(len(template.clauses)))
        assert template.example(dict.fromkeys(template.fields, 1.0))


def test_templates_are_in_the_package() -> None:
    root = Path(__file__).parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    assert "**/*.toml" in settings["tool"]["setuptools"]["package-data"]["crystaljax"]


def test_a_template_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('user = "Hi {who}"\ncompletion = "Hello"\n')
    assert load_template(path) == PromptTemplate("mine", "Hi {who}", "Hello")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user = ", "is no TOML"),
        ('user = "a"', "completion is missing"),
        ('user = "a"\ncompletion = 3', "completion must be a text, and is 3"),
        ('user = "a"\ncompletion = ""\nclauses = "{a}"', "clauses must be a list of texts"),
        ('user = "a"\ncompletion = ""\nassistant = ""', "unknown key 'assistant'"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.toml.*{message}"):
        load_template(path)


def test_unknown_templates(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no prompt template 'alloy': there are .*alloy_triple"):
        load_template("alloy")
    with pytest.raises(FileNotFoundError):
        load_template(tmp_path / "absent.toml")
