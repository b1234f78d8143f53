"""Claims on what `kdleak audit` is given: lists, templates, folders, and what it refuses in one line."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from peft import LoraConfig, get_peft_model

import kdleak
from kdleak.auditing import standalone
from kdleak.auditing.lists import overlapping, read_lists
from kdleak.auditing.passes import make_subjects
from kdleak.auditing.settings import Limits
from kdleak.auditing.sources import within
from kdleak.core.errors import KdleakError
from kdleak.data.encoding import Encoder
from kdleak.data.templates import choose_template
from kdleak.models.checkpoints import load_model, load_tokenizer, position_limit, save_checkpoint
from kdleak.models.hub import model_folder
from tests.support.standalone_models import model_that_knows, people, texts, tokenizer_of
from tests.support.tiny_models import tiny_model

MEMBERS, NONMEMBERS = people(12, 1), people(12, 2)
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<a>\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(people(40, 3))


def refused(*arguments, **options) -> str:
    with pytest.raises(KdleakError) as caught:
        read_lists(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_record_is_the_same_from_jsonl_parquet_csv_and_a_table(tmp_path):
    frame = pd.DataFrame(MEMBERS)
    frame.to_json(tmp_path / "m.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "m.parquet")
    frame.to_csv(tmp_path / "m.csv", index=False)
    sources = [MEMBERS, frame, *(tmp_path / f"m.{kind}" for kind in ("jsonl", "parquet", "csv"))]
    found = [read_lists(source, NONMEMBERS).frame.drop(columns="place") for source in sources]
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other)


def test_prompts_with_completions_and_texts_are_records_too():
    pairs = [
        [{"prompt": r["instruction"], "completion": r["response"]} for r in rows] for rows in (MEMBERS, NONMEMBERS)
    ]
    lists = read_lists(*pairs)
    assert lists.shape == "prompt"
    assert set(lists.frame["record_id"]) == set(read_lists(MEMBERS, NONMEMBERS).frame["record_id"])
    assert read_lists(texts(12, 1), texts(12, 2)).shape == "text"


def test_lists_of_different_shapes_few_records_and_rows_that_are_none_are_refused():
    assert "shape 'instruction'" in refused(MEMBERS, texts(12, 2)) and "shape 'text'" in refused(MEMBERS, texts(12, 2))
    assert "3 distinct members" in refused(MEMBERS[:3], NONMEMBERS)
    assert "row 2: it has 'question'; a record needs" in refused([MEMBERS[0], {"question": "x"}], NONMEMBERS)
    assert "the response is empty" in refused([{"instruction": "x", "response": " "}], NONMEMBERS)
    assert "write all rows the same way" in refused([MEMBERS[0], *texts(1, 1)], NONMEMBERS)
    assert "field 'completion' is list, not a text" in refused([{"prompt": "a", "completion": ["b"]}], NONMEMBERS)


def test_repeated_rows_count_once():
    lists = read_lists([*MEMBERS, *MEMBERS[:2]], NONMEMBERS)
    assert lists.duplicates == {"member": 2, "nonmember": 0} and len(lists.frame) == 24


def long_record(generator, last: str) -> dict[str, str]:
    return {"instruction": "Tell.", "response": " ".join([*(f"w{i}" for i in generator.integers(1000, size=40)), last])}


def test_lists_that_share_records_or_near_duplicates_are_refused_with_the_ids():
    generator = np.random.default_rng(0)
    near = long_record(generator, "one")
    nearly = {**near, "response": near["response"].replace(" one", " two")}
    members, nonmembers = [*MEMBERS, near], [*NONMEMBERS, MEMBERS[4], nearly]
    message = refused(members, nonmembers)
    shared = overlapping(
        pd.concat([read_lists(members, NONMEMBERS).frame, read_lists(MEMBERS[:3] + MEMBERS[5:], nonmembers).frame])
    ).drop_duplicates(["member", "nonmember"])
    both = shared[shared["same"]]
    assert "1 records stand in both, 1 have a near-duplicate in the other" in message
    assert f"{lists_id(MEMBERS[4])[:12]} (members, row 5) = {lists_id(MEMBERS[4])[:12]} (nonmembers, row 13)" in message
    assert f"{lists_id(near)[:12]} (members, row 13) ~ {lists_id(nearly)[:12]} (nonmembers, row 14)" in message
    assert lists_id(MEMBERS[4]) in set(both["member"])
    lists = read_lists(members, nonmembers, drop_overlap=True)
    assert lists.overlap == {"member": 2, "nonmember": 2}
    assert not {lists_id(near), lists_id(MEMBERS[4])} & set(lists.frame["record_id"])


def test_all_pairs_that_overlap_are_written_where_a_folder_is_given(tokenizer, tmp_path):
    student = model_that_knows([], tmp_path / "m", tokenizer)
    with pytest.raises(KdleakError, match=r"12 records stand in both.* and 7 more;.*out/overlap.csv"):
        kdleak.audit(student, MEMBERS, [*MEMBERS, *NONMEMBERS], out=tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "overlap.csv")
    assert set(written["member"]) == {lists_id(row) for row in MEMBERS}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["overlap.csv"]


def lists_id(row: dict[str, str]) -> str:
    from kdleak.data.records import record_id

    return record_id(row["instruction"], row.get("context", ""), row["response"])


def test_two_questions_on_one_document_and_one_question_on_two_documents_are_no_overlap():
    document = " ".join(f"w{i}" for i in range(300))
    questions = [[{**row, "context": document} for row in rows] for rows in (MEMBERS, NONMEMBERS)]
    assert len(read_lists(*questions).frame) == 24
    labels = [[{"instruction": "Of whom?", "context": r["response"], "response": "Ada"} for r in rows] for rows in
              (MEMBERS, NONMEMBERS)]  # fmt: skip
    assert len(read_lists(*labels).frame) == 24
    with pytest.raises(KdleakError, match="12 records stand in both"):
        read_lists(labels[0], [*labels[0], *labels[1]])


def test_the_template_is_the_tokenizers_chat_template_where_it_has_one(tokenizer):
    from copy import deepcopy

    chatty = deepcopy(tokenizer)
    chatty.chat_template = CHAT
    assert choose_template("auto", "instruction", chatty) == "chat"
    assert choose_template("auto", "instruction", tokenizer) == "alpaca"
    assert choose_template("auto", "prompt", chatty) == choose_template("auto", "text", chatty) == "plain"
    encoder = Encoder(chatty, template="chat")
    assert encoder.prompt("Who?", "") == "<user> Who?\n<a>\n"
    row = read_lists(MEMBERS, NONMEMBERS).frame.head(1)
    record = encoder.encode_frame(row)[0]
    assert tokenizer.decode(record.prompt) == f"<user> {row['instruction'][0]}\n<a>\n"
    assert tokenizer.decode(record.response[: record.n_scored]) == row["response"][0]
    with pytest.raises(KdleakError, match="no chat template"):
        choose_template("chat", "instruction", tokenizer)
    with pytest.raises(KdleakError, match="did you mean 'alpaca'"):
        choose_template("alpacca", "instruction", tokenizer)


def test_a_long_prompt_keeps_its_end_and_a_cut_response_is_cut_for_every_model(tokenizer, tmp_path):
    frame = read_lists(MEMBERS, NONMEMBERS).frame
    tight, wide = tokenizer_of(people(40, 3), words=270), tokenizer
    plain = Encoder(wide, 8, 40, "plain").encode_frame(frame)[0]
    assert frame["instruction"][0].endswith(wide.decode(plain.prompt)) and len(plain.prompt) == 8
    encoders = {name: Encoder(t, 12, 24, "{instruction}\n") for name, t in (("a", tight), ("b", wide))}
    subjects, cut = make_subjects({"a": tmp_path, "b": tmp_path}, encoders, frame)
    records = {name: subject.records for name, subject in subjects.items()}
    lengths = [[len(t(f"{text}\n")["input_ids"]) for text in frame["instruction"]] for t in (tight, wide)]
    longer = [max(both) for both in zip(*lengths, strict=True)]
    assert cut == {"prompts": sum(n > 12 for n in longer), "responses": 24}
    for a, b, text in zip(records["a"], records["b"], frame["response"], strict=True):
        said = [t.decode(r.response[: r.n_scored]) for t, r in ((tight, a), (wide, b))]
        assert said[0] == said[1] and text.startswith(said[0])


def test_by_default_texts_are_as_long_as_the_model_of_the_fewest_positions_reads(tokenizer, tmp_path):
    """Room for a continuation aside; a limit that is given lowers it and never raises it."""
    folders = [tmp_path / str(positions) for positions in (128, 96)]
    for folder in folders:
        model = tiny_model(layers=1, vocabulary=len(tokenizer), positions=int(folder.name))
        save_checkpoint(model, tokenizer, folder)
    positions, room = [position_limit(folder) for folder in folders], standalone.CONTINUED
    assert positions == [128, 96]
    assert within(Limits(), positions[:1], room) == Limits(128 - room, 128)
    assert within(Limits(), positions, room) == within(Limits(4096, 4096), positions, room) == Limits(96 - room, 96)
    assert within(Limits(20, 64), positions, room) == Limits(20, 64)


def test_pickle_weights_alone_and_absent_folders_are_refused_in_one_line(tokenizer, tmp_path):
    folder = model_that_knows([], tmp_path / "m", tokenizer)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(KdleakError, match="pickle files are never read"):
        kdleak.audit(folder, MEMBERS, NONMEMBERS)
    with pytest.raises(KdleakError, match="no such model folder"):
        kdleak.audit(tmp_path / "absent", MEMBERS, NONMEMBERS)


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(KdleakError, match=r"no-one/no-model: no such folder here.* at revision abc") as caught:
        model_folder("no-one/no-model@abc")
    assert "\n" not in str(caught.value)


def test_a_lora_adapter_is_audited_as_its_merged_model(tokenizer, tmp_path):
    import torch

    base = model_that_knows([], tmp_path / "base", tokenizer, family="llama")
    torch.manual_seed(0)
    wrapped = get_peft_model(load_model(base), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(1, 20)[None]
    merged = load_model(tmp_path / "adapter")
    torch.testing.assert_close(merged(ids).logits, wrapped.eval()(ids).logits, rtol=0, atol=1e-4)
    assert not torch.allclose(merged(ids).logits, load_model(base)(ids).logits, atol=1e-2)
    assert load_tokenizer(tmp_path / "adapter").get_vocab() == tokenizer.get_vocab()
    result = kdleak.audit(
        tmp_path / "adapter", MEMBERS, NONMEMBERS, pretrained=base, quick=True, template="{instruction}\n"
    )
    assert "ref_pretrained" in result.figures["membership"]["attacks"]


def test_kdleak_audit_is_a_function_and_imports_no_torch():
    code = (
        "import sys, kdleak, inspect; from kdleak.auditing import membership; assert callable(kdleak.audit);"
        "assert list(inspect.signature(kdleak.audit).parameters)[:3] == ['student', 'members', 'nonmembers'];"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_works_in_an_empty_folder_without_dvc_and_mlflow(tokenizer, tmp_path):
    save_checkpoint(tiny_model("gpt2", layers=1, vocabulary=320), tokenizer, tmp_path / "student")
    folder = tmp_path / "empty"
    folder.mkdir()
    for rows, name in ((MEMBERS, "m.jsonl"), (NONMEMBERS, "n.jsonl")):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (
        "import sys\n"
        "for name in ('dvc', 'mlflow', 'great_expectations'): sys.modules[name] = None\n"  # an import would raise
        "sys.argv = 'kdleak audit --student ../student --members ../m.jsonl --nonmembers ../n.jsonl --quick"
        " --template plain'.split()\n"
        "from kdleak.cli.main import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Of 1,000 members" in done.stdout and "kdleak-audit/report.html" in done.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["kdleak-audit"]
    assert sorted(p.name for p in (folder / "kdleak-audit").iterdir()) == [
        "audit.json",
        "report.html",
        "scores.parquet",
    ]
