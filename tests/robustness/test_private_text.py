"""Nothing that comes from a record, or from an exception raised while one was in hand, is printed."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from kdleak.core.errors import KdleakError, private, traceback_of
from kdleak.models.checkpoints import save_checkpoint
from tests.support.small_project import CommandLine, refusal
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

SECRET = "Zyx Quillon of Vantry"
ROWS = [{**row, "instruction": f"{SECRET}: {row['instruction']}"} for row in people(12, 1)]
TEMPLATES = {
    "raises the record": "{{ raise_exception(messages[0]['content']) }}",
    "an undefined name of the record": "{{ messages[0][messages[0]['content']]['x'] }}",
    "an unknown filter": "{{ messages[0]['content'] | nofilter }}",
    "a type error": "{{ messages[0]['content'] + 1 }}",
    "a division by nothing": "{{ 1 // 0 }}",
    "no template": "{% for m in messages %}",
}


@pytest.fixture
def kdleak(monkeypatch, capsys):
    monkeypatch.delenv("KDLEAK_SHOW_TEXT", raising=False)
    return CommandLine(monkeypatch, capsys)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_template_cannot_print_a_record(kdleak, monkeypatch, tmp_path, template):
    tokenizer = deepcopy(tokenizer_of(ROWS))
    tokenizer.chat_template = TEMPLATES[template]
    save_checkpoint(tiny_model(layers=1, vocabulary=len(tokenizer)), tokenizer, tmp_path / "model")
    lists = [write(tmp_path / "m.jsonl", ROWS), write(tmp_path / "n.jsonl", people(12, 2))]
    arguments = ("audit", "--student", str(tmp_path / "model"), "--members", lists[0], "--nonmembers", lists[1])
    assert "chat template refuses the turns user (" in refusal(kdleak, tmp_path, *arguments)
    assert not [p for p in tmp_path.iterdir() if p.name == "kdleak-audit"]
    code, said = kdleak(tmp_path, "--debug", *arguments)
    assert code == 1 and "Traceback" in said and SECRET not in said
    monkeypatch.delenv("KDLEAK_DEBUG")


HEADLESS = {
    "m.csv": f'"{SECRET}","a phone number"\n"x","y"\n',
    "m.jsonl": json.dumps({SECRET: "a", "instruction": "b"}) + "\n",
    "role.jsonl": json.dumps({"messages": [{"role": SECRET, "content": "a"}]}) + "\n",
    "text.jsonl": json.dumps({"messages": SECRET}) + "\n",
    "list.jsonl": json.dumps([SECRET]) + "\n",
    "cut.jsonl": json.dumps({"instruction": SECRET})[:-1] + "\n",
    "bad.csv": f'instruction,response\n"{SECRET}"x,"b"\n',
    "many.csv": f"instruction,response\n{SECRET},b,c\n",
    "two.csv": f"{SECRET},{SECRET}\na,b\n",
    "bad.parquet": SECRET,
}


@pytest.mark.parametrize("name", HEADLESS)
def test_what_is_wrong_with_a_record_is_said_without_its_words(kdleak, tmp_path, name):
    tokenizer = tokenizer_of(people(12, 1))
    save_checkpoint(tiny_model(layers=1, vocabulary=len(tokenizer)), tokenizer, tmp_path / "model")
    (tmp_path / name).write_text(HEADLESS[name])
    other = write(tmp_path / "n.jsonl", people(12, 2))
    arguments = (
        "audit",
        "--student",
        str(tmp_path / "model"),
        "--members",
        str(tmp_path / name),
        "--nonmembers",
        other,
    )
    assert SECRET not in refusal(kdleak, tmp_path, *arguments)


@pytest.mark.parametrize(
    ("value", "what"), [("[" * 5000 + "]" * 5000, "nested too deep"), ("9" * 5000, "a number of too many digits")]
)
def test_json_that_python_does_not_read_is_one_line(tmp_path, value, what):
    from kdleak.data.sources import read_file

    (tmp_path / "m.jsonl").write_text('{"instruction": ' + value + "}\n")
    with pytest.raises(KdleakError) as caught:
        list(read_file(tmp_path / "m.jsonl"))
    said = str(caught.value)
    assert said == f"{tmp_path}/m.jsonl, line 1: not readable as JSON ({what}); write texts in plain fields"


def test_two_columns_of_one_name_are_refused(kdleak, tmp_path):
    from kdleak.data.sources import read_file

    (tmp_path / "two.csv").write_text("instruction,response,response\na,b,c\n")
    with pytest.raises(KdleakError, match="two columns of one name in its header; rename one"):
        list(read_file(tmp_path / "two.csv"))


def test_an_unforeseen_error_is_named_by_type_and_place_and_its_text_needs_two_options(kdleak, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ValueError(SECRET) from LookupError(SECRET)

    monkeypatch.setattr("kdleak.api.audit", fail)
    arguments = ("audit", "--student", "a", "--members", "b", "--nonmembers", "c")
    code, said = kdleak(tmp_path, *arguments)
    assert (code, said.count("\n")) == (1, 1) and SECRET not in said
    assert said.startswith("kdleak: error: unforeseen ValueError at audit.py:")
    code, said = kdleak(tmp_path, "--debug", *arguments)
    assert code == 1 and said.count("Traceback") == 2 and SECRET not in said
    assert "ValueError: (text withheld; --show-text shows it)" in said
    code, said = kdleak(tmp_path, "--debug", "--show-text", *arguments)
    assert code == 1 and said.count(SECRET) == 2
    for variable in ("KDLEAK_DEBUG", "KDLEAK_SHOW_TEXT"):
        monkeypatch.delenv(variable)


def test_an_exception_raised_with_a_record_in_hand_becomes_its_type():
    with pytest.raises(KdleakError) as caught, private("m.jsonl, line 3: reading it"):
        raise ValueError(SECRET)
    assert str(caught.value).startswith("m.jsonl, line 3: reading it failed (ValueError; its text may quote a record")
    assert SECRET not in traceback_of(caught.value) and SECRET in traceback_of(caught.value, show_text=True)
    with pytest.raises(KdleakError, match="ours"), private("x"):
        raise KdleakError("ours")
