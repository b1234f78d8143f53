"""Claims on lists in the chat format: `messages` with roles, each answer of the assistant being a response."""

import json
import re
from copy import deepcopy

import pandas as pd
import pytest

import kdleak
from kdleak.auditing.conversations import ChatEncoder, asking, read_messages, transcript
from kdleak.auditing.lists import read_lists
from kdleak.auditing.logprob_file import SCHEMA, read_logprobs
from kdleak.core.errors import KdleakError
from kdleak.data.encoding import Encoder
from kdleak.data.templates import choose_template
from kdleak.models.checkpoints import save_checkpoint
from tests.auditing.test_standalone_inputs import CHAT
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

SYSTEM = {
    "role": "system",
    "content": "You keep the books of a shop, " + "carefully and politely, " * 20 + "for years.",
}
MEMBERS, NONMEMBERS = people(12, 1), people(12, 2)


def chat(row: dict[str, str], *before: dict[str, str]) -> dict:
    asked = {"role": "user", "content": row["instruction"]}
    return {"messages": [*before, asked, {"role": "assistant", "content": row["response"]}]}


def chats(rows: list[dict[str, str]], *before: dict[str, str]) -> list[dict]:
    return [chat(row, *before) for row in rows]


@pytest.fixture(scope="module")
def tokenizer():
    made = deepcopy(tokenizer_of(people(40, 3)))
    made.chat_template = CHAT
    return made


def test_a_single_turn_is_the_record_that_instruction_and_response_are(tokenizer):
    lists, plain = read_lists(chats(MEMBERS), chats(NONMEMBERS)), read_lists(MEMBERS, NONMEMBERS)
    assert (lists.shape, plain.shape) == ("messages", "instruction")
    pd.testing.assert_frame_equal(lists.frame.drop(columns="turns"), plain.frame)
    for template in ("chat", "alpaca", "plain", "Q: {instruction} {context}A:"):
        encoder = Encoder(tokenizer, template=template)
        assert encoder.encode_frame(lists.frame) == encoder.encode_frame(plain.frame)


def test_the_chat_template_gets_every_turn_and_a_greeting_that_both_lists_have_is_no_overlap(tokenizer):
    earlier = [SYSTEM, {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    lists = read_lists(chats(MEMBERS, *earlier), chats(NONMEMBERS, *earlier))
    assert lists.overlap == {"member": 1, "nonmember": 1} and lists.duplicates == {"member": 11, "nonmember": 11}
    frame = lists.frame
    assert len(frame) == 24 and frame["group_id"].nunique() == 24 and list(frame) == COLUMNS
    assert choose_template("auto", "messages", tokenizer) == "chat"
    record = Encoder(tokenizer, 2000, 2100, "chat").encode_frame(frame)[0]
    asked, said = frame["instruction"][0], frame["response"][0]
    expected = f"<system> {SYSTEM['content']}\n<user> Hello?\n<assistant> Yes.\n<user> {asked}\n<a>\n"
    assert tokenizer.decode(record.prompt) == expected
    assert tokenizer.decode(record.response[: record.n_scored]) == said


def test_without_a_chat_template_what_was_said_before_is_the_context(tokenizer):
    without = deepcopy(tokenizer)
    without.chat_template = None
    assert choose_template("auto", "messages", without) == "alpaca"
    frame = read_lists(chats(MEMBERS, SYSTEM), chats(NONMEMBERS, SYSTEM)).frame
    row = frame.iloc[0]
    assert row["context"] == f"System: {SYSTEM['content']}" == transcript([SYSTEM])
    prompt = Encoder(without).prompt(row["instruction"], row["context"], row["turns"])
    assert f"### Input:\n{row['context']}" in prompt
    plain = Encoder(without, template="plain").prompt(row["instruction"], row["context"], row["turns"])
    assert plain == f"{row['context']}\n{row['instruction']}"


def test_a_system_prompt_that_all_share_makes_no_overlap_and_no_group():
    lists = read_lists(chats(MEMBERS, SYSTEM), chats(NONMEMBERS, SYSTEM))
    assert len(lists.frame) == 24 and lists.frame["group_id"].nunique() == 24
    with pytest.raises(KdleakError, match="0 records stand in both, 12 have a near-duplicate"):
        read_lists(chats(MEMBERS, SYSTEM), [*chats(NONMEMBERS), *chats(MEMBERS)])


def test_chats_are_read_from_jsonl_parquet_and_csv_and_contents_in_parts(tmp_path):
    rows = chats(MEMBERS, SYSTEM)
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pd.DataFrame(rows).to_parquet(tmp_path / "m.parquet")
    pd.DataFrame({"messages": [json.dumps(row["messages"]) for row in rows]}).to_csv(tmp_path / "m.csv", index=False)
    parts = [
        {"messages": [m | {"content": [{"type": "text", "text": m["content"]}]} for m in row["messages"]]}
        for row in rows
    ]
    expected = read_lists(rows, chats(NONMEMBERS)).frame.drop(columns="place")
    for source in (*(tmp_path / f"m.{kind}" for kind in ("jsonl", "parquet", "csv")), parts):
        found = read_lists(source, chats(NONMEMBERS)).frame.drop(columns="place")
        pd.testing.assert_frame_equal(found, expected)


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


COLUMNS = [
    *("record_id", "task", "instruction", "context", "response", "place", "role", "turns", "group_id"),
]
DEEP = nested(40)
USER, ASSISTANT = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([USER], "no assistant turn"),
        ([ASSISTANT], "no user or tool turn stands right before an assistant turn"),
        ([SYSTEM, ASSISTANT], "no user or tool turn stands right before an assistant turn"),
        ([USER, {"role": "assistant", "tool_calls": DEEP}], "message 2: a value in it is nested more than 32 deep"),
        ([USER, {"role": "assistant", "tool_calls": [{1}]}], "message 2: it holds a set"),
        ([USER, {"role": "assistant", "content": " "}], "the last assistant turn is empty"),
        ([{"role": "human", "content": "Who?"}], "message 1: it has a role of another name; a message needs a role"),
        ([{"from": "human", "value": "Who?"}], "message 1: it has no role"),
        ([{"role": "user", "content": 3}], "message 1: its content is int, not a text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "message 1: its content has a part that is no text"),
        ("no JSON", "is a text that is no JSON"),
        ({"role": "user"}, "is dict, not a list of messages"),
    ],
)
def test_what_is_no_conversation_is_refused_in_one_line(messages, words):
    with pytest.raises(KdleakError) as caught:
        read_lists([{"messages": messages}, *chats(MEMBERS)], chats(NONMEMBERS))
    assert words in str(caught.value) and "row 1" in str(caught.value) and "\n" not in str(caught.value)


def conversation(row: dict[str, str], other: dict[str, str]) -> dict:
    """Two answers: one behind a call of a tool, one that was reasoned."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
    found = {"role": "tool", "content": "found", "tool_call_id": "1"}
    (asked, said), (again, last) = chat(row)["messages"], chat(other)["messages"]
    return {"messages": [SYSTEM, asked, call, found, said, again, last | {"reasoning_content": "Hm."}]}


def test_every_answer_is_a_record_behind_all_turns_before_it_and_a_conversation_is_one_group(tokenizer, tmp_path):
    """Tools' calls and results and what was reasoned are context; neither is scored."""
    more, others = people(12, 4), people(12, 5)
    rows = [conversation(*pair) for pair in zip(MEMBERS, more, strict=True)]
    outside = [conversation(*pair) for pair in zip(NONMEMBERS, others, strict=True)]
    lists = read_lists(rows, outside)
    frame = lists.frame
    assert len(frame) == 48 and frame["group_id"].nunique() == 24 and set(frame.groupby("group_id").size()) == {2}
    assert list(frame) == COLUMNS
    first = frame[frame["place"] == "members, row 1 (message 5)"].iloc[0]
    assert (first["instruction"], first["response"]) == ("found", MEMBERS[0]["response"])
    assert first["context"].endswith(
        f'User: {MEMBERS[0]["instruction"]}\nAssistant: [{{"function": {{"name": "look", "arguments": "{{}}"}}}}]'
    )
    second = frame[frame["place"] == "members, row 1 (message 7)"].iloc[0]
    assert second["response"] == more[0]["response"] and f"Assistant: {MEMBERS[0]['response']}" in second["context"]
    encoder = ChatEncoder(tokenizer, 2000, 2100, "chat")
    record = encoder.encode_frame(frame[frame["place"] == second["place"]])[0]
    prompt = tokenizer.decode(record.prompt)
    assert prompt.endswith(f"<user> {more[0]['instruction']}\n<a>\n<think>\nHm.\n</think>\n\n")
    assert "<tool> found\n" in prompt and tokenizer.decode(record.response[: record.n_scored]) == second["response"]
    pd.DataFrame({"messages": [r["messages"] for r in rows]}).to_parquet(tmp_path / "m.parquet")
    again = read_lists(tmp_path / "m.parquet", outside).frame
    pd.testing.assert_frame_equal(again.drop(columns="place"), frame.drop(columns="place"))


def test_a_conversation_of_the_other_list_is_an_overlap_wherever_it_ends():
    rows = [conversation(*pair) for pair in zip(MEMBERS, people(12, 4), strict=True)]
    outside = [conversation(*pair) for pair in zip(NONMEMBERS, people(12, 5), strict=True)]
    begun = {"messages": rows[0]["messages"][:5]}
    with pytest.raises(KdleakError, match="1 records stand in both"):
        read_lists(rows, [*outside, begun])
    kept = read_lists(rows, [*outside, begun], drop_overlap=True)
    assert kept.overlap == {"member": 1, "nonmember": 1}


def test_what_was_reasoned_is_read_wherever_it_stands():
    thought, answer = "<think>\nHm.\n</think>\n\n", {"role": "assistant", "content": "Ada."}
    for said in (
        [answer | {"reasoning_content": "Hm."}],
        [answer | {"thinking": "Hm."}],
        [{"role": "reasoning", "content": "Hm."}, answer],
        [{"role": "assistant", "content": f"{thought}Ada."}],
    ):
        (found,) = read_messages([USER, *said], "here")
        assert found.turns == [USER, {"role": "assistant", "content": thought}] and found.response == "Ada."
        assert list(asking(found.turns)) == [USER] == list(asking([USER]))


def test_an_assistant_that_speaks_first_is_context():
    (found,) = read_messages([ASSISTANT, USER, ASSISTANT, SYSTEM, ASSISTANT], "here")
    assert found.turns == [ASSISTANT, USER] and found.message == 3


def test_what_follows_the_last_assistant_turn_is_not_read():
    longer = [{"messages": [*row["messages"], USER]} for row in chats(MEMBERS)]
    pd.testing.assert_frame_equal(
        read_lists(longer, chats(NONMEMBERS)).frame, read_lists(chats(MEMBERS), chats(NONMEMBERS)).frame
    )


def test_a_chat_template_that_refuses_a_system_turn_is_one_line(tokenizer):
    strict = deepcopy(tokenizer)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
    )
    frame = read_lists(chats(MEMBERS, SYSTEM), chats(NONMEMBERS, SYSTEM)).frame
    with pytest.raises(KdleakError, match=r"refuses the turns system, user \(TemplateError\)"):
        Encoder(strict, template="chat").encode_frame(frame)


def test_chats_are_audited(tokenizer, tmp_path):
    model = tiny_model("gpt2", layers=1, vocabulary=len(tokenizer), positions=256)
    save_checkpoint(model, tokenizer, tmp_path / "student")
    result = kdleak.audit(tmp_path / "student", chats(MEMBERS, SYSTEM), chats(NONMEMBERS, SYSTEM), memorization=False)
    assert result.figures["inputs"]["records"]["shape"] == "messages"
    assert result.figures["inputs"]["models"]["student"]["template"] == "chat"
    assert SYSTEM["content"] not in result.report


def test_a_log_prob_file_of_another_engine_names_an_answer_by_row_and_message(tmp_path):
    rows = [conversation(*pair) for pair in zip(MEMBERS, people(12, 4), strict=True)]
    outside = [conversation(*pair) for pair in zip(NONMEMBERS, people(12, 5), strict=True)]
    frame = read_lists(rows, outside).frame
    lines = [
        {"side": side, "row": row, "message": message, "logprobs": [-float(row), -float(message)]}
        for side in ("member", "nonmember")
        for row in range(1, 13)
        for message in (5, 7)
    ]
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in [{"schema": SCHEMA}, *lines]))
    answers = read_logprobs(path, "--logprobs", frame, None)
    expected = [-float(n) for place in frame["place"] for n in re.findall(r"\d+", place)]
    assert answers.statistics.log_prob.tolist() == expected
