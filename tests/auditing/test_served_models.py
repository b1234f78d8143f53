"""Claims on models that are not loaded here: the same verdict from a folder, a log-prob file and an endpoint."""

import json
import stat

import numpy as np
import pytest

import kdleak
from kdleak.auditing.export import export_logprobs
from kdleak.auditing.served import _answers
from kdleak.auditing.settings import Limits, Settings
from kdleak.auditing.sources import by_role
from kdleak.auditing.standalone import ROLES
from kdleak.core.errors import KdleakError
from kdleak.inference import http_client
from kdleak.inference.answer_store import AnswerStore
from tests.support.completions_server import completions_server
from tests.support.small_project import CommandLine
from tests.support.standalone_models import model_that_knows, people, tokenizer_of

N = 24
MEMBERS, NONMEMBERS, OTHERS = people(N, 1), people(N, 2), people(12, 3)
TEMPLATE = "{instruction}\n"
#: What log-probs, the first choice and other texts give: all that an endpoint has.
ATTACKS = ["loss", "zlib", "mink", "ref_pretrained", "rmia", "ez", "wbc", "lowercase", "recall"]
HOW = {"template": TEMPLATE, "attacks": ATTACKS, "memorization": False, "population": OTHERS}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return model_that_knows(MEMBERS[:16], tmp_path_factory.mktemp("served") / "student", tokenizer_of(OTHERS))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return model_that_knows([], tmp_path_factory.mktemp("served") / "base", tokenizer_of(OTHERS), seed=7)


@pytest.fixture(scope="module")
def from_folder(student, base):
    return kdleak.audit(student, MEMBERS, NONMEMBERS, pretrained=base, **HOW)


@pytest.fixture(scope="module")
def file(student, tmp_path_factory):
    out = tmp_path_factory.mktemp("files") / "student.jsonl"
    assert export_logprobs(student, MEMBERS, NONMEMBERS, OTHERS, Settings(template=TEMPLATE), out) == 2 * N
    return out


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "FIRST_WAIT", 0.001)
    monkeypatch.delenv("KDLEAK_API_KEY", raising=False)


def endpoint(url: str, student, base, tmp_path, **options):
    how = {"endpoints": {"student": url}, "cache": tmp_path / "cache", "pretrained": base, **HOW, **options}
    return kdleak.audit(student, MEMBERS, NONMEMBERS, **how)


def tokenizer_alone(student, folder):
    """The folder of a model whose weights are elsewhere."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((student / name).read_bytes())
    return folder


def same(one, other) -> None:
    assert one.verdict == other.verdict
    for name in ATTACKS:
        large = 1e-4 if name == "recall" else 0  # a ratio: of a text known by heart it is in the hundreds
        np.testing.assert_allclose(one.table[name], other.table[name], atol=1e-4, rtol=large, err_msg=name)


def test_a_folder_a_file_and_an_endpoint_give_one_verdict_and_the_same_scores(
    student, base, file, from_folder, tmp_path
):
    same(from_folder, kdleak.audit(None, MEMBERS, NONMEMBERS, logprobs={"student": file}, pretrained=base, **HOW))
    with completions_server(student) as served:
        result = endpoint(served.url, tokenizer_alone(student, tmp_path / "t"), base, tmp_path)
    same(from_folder, result)
    assert result.figures["inputs"]["models"]["student"]["source"] == "endpoint"
    kept = tmp_path / "cache" / "endpoint-answers.sqlite"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert MEMBERS[0]["response"].encode() not in kept.read_bytes()


def test_an_audit_of_files_alone_is_that_of_the_folders(student, base, file, from_folder, tmp_path):
    export_logprobs(base, MEMBERS, NONMEMBERS, None, Settings(template=TEMPLATE, quick=True), tmp_path / "b.jsonl")
    files = {"student": file, "pretrained": tmp_path / "b.jsonl"}
    result = kdleak.audit(None, MEMBERS, NONMEMBERS, logprobs=files, out=tmp_path / "out", **HOW)
    same(from_folder, result)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written["inputs"]["models"]["student"]["source"] == "log-prob file"
    assert written["inputs"]["settings"]["max_tokens"] is None


def test_attacks_that_need_more_than_is_given_are_named_with_what_they_need(student, file, tmp_path):
    options = {"template": TEMPLATE, "population": OTHERS}
    result = kdleak.audit(None, MEMBERS, NONMEMBERS, logprobs={"student": file}, **options)
    assert result.figures["left_out"]["mope"] == "needs the model's weights"
    assert "minkpp" in result.figures["membership"]["attacks"] and result.figures["memorization"] is None
    with completions_server(student) as served:
        options |= {"endpoints": {"student": served.url}, "cache": tmp_path / "cache"}
        left_out = kdleak.audit(student, MEMBERS, NONMEMBERS, **options).figures["left_out"]
    assert left_out["minkpp"] == (
        "needs the mean and the deviation of log-probs over the vocabulary, which an endpoint does not give"
    )
    assert left_out["mope"] == "needs the model's weights"


def other_engine(file, tmp_path, change):
    """A file as another engine would write it: records by side and row, log-probs alone."""
    header, *lines = map(json.loads, file.read_text().splitlines())
    from kdleak.data.records import record_id

    rows = {record_id(r["instruction"], "", r["response"]): i for rows in (MEMBERS, NONMEMBERS, OTHERS)
            for i, r in enumerate(rows, start=1)}  # fmt: skip
    made = [{"side": x["side"], "row": rows[x["id"]], "logprobs": x["logprobs"]} for x in lines]
    header, made = change({"schema": header["schema"]}, made)
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps(each) for each in (header, *made)))
    return tmp_path / "other.jsonl"


def test_another_engines_file_names_records_by_side_and_row(file, base, from_folder, tmp_path):
    written = other_engine(file, tmp_path, lambda header, lines: (header, lines[::-1]))
    options = {"logprobs": {"student": written}, "pretrained": base, **HOW}
    result = kdleak.audit(None, MEMBERS, NONMEMBERS, **options)
    np.testing.assert_allclose(result.table["rmia"], from_folder.table["rmia"], atol=1e-4)
    left_out = result.figures["left_out"]
    assert left_out["ez"] == "needs whether each token is the model's first choice, which other.jsonl does not give"
    assert "needs the log-probs of another pass ('lowercase'), which other.jsonl does not give" in left_out["lowercase"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h, x: ({}, x), "its first line is no header; a log-prob file begins with"),
        (lambda h, x: (h, [{**x[0], "side": "friend"}, *x[1:]]), "line 2: its side is none of member, nonmember"),
        (lambda h, x: (h, [{"logprobs": [-1.0]}, *x]), "names no record; it needs its id, or its side and row"),
        (lambda h, x: (h, [x[0], *x]), "line 3: a second line for one record; a record has one line"),
        (lambda h, x: (h, x[2:]), "no line for 2 of 48 records (first: "),
        (lambda h, x: (h, [{**x[0], "logprobs": [-1, None]}, *x[1:]]), "logprobs is no list of finite numbers"),
        (lambda h, x: (h, [{**x[0], "logprobs": [-1e999]}, *x[1:]]), "logprobs is no list of finite numbers"),
        (lambda h, x: (h, [{**x[0], "logprobs": [0.5]}, *x[1:]]), "a log-prob above 0 in logprobs; write natural"),
        (lambda h, x: (h, [{**x[0], "top1": [1]}, *x[1:]]), "top1 is no list of true and false, one a token"),
        (lambda h, x: (h, [{**x[0], "mean": [-1]}, *x[1:]]), "1 values of mean for"),
        (lambda h, x: (h, [{**x[0], "variants": [1]}, *x[1:]]), "variants is no object; it holds a list of log-probs"),
        (lambda h, x: (h, [{**x[0], "characters": 10**6}, *x[1:]]), "covers characters that its response does not"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(change, said, file, tmp_path):
    written = other_engine(file, tmp_path, change)
    with pytest.raises(KdleakError) as caught:
        kdleak.audit(None, MEMBERS, NONMEMBERS, logprobs={"student": written}, template=TEMPLATE)
    assert said in str(caught.value) and str(caught.value).startswith(str(written)) and "\n" not in str(caught.value)


def test_a_file_that_covers_less_of_a_response_than_another_model_is_refused(student, base, file, tmp_path):
    long = [[{**row, "response": 4 * row["response"]} for row in rows] for rows in (MEMBERS, NONMEMBERS)]
    limits = {"max_prompt_tokens": 24, "max_tokens": 56}
    short = Settings(template=TEMPLATE, limits=Limits(*limits.values()), quick=True)
    export_logprobs(student, *long, None, short, tmp_path / "short.jsonl")
    files, how = {"student": tmp_path / "short.jsonl"}, {**HOW, "population": None, "attacks": ["loss", "rmia"]}
    with pytest.raises(KdleakError, match=r"short.jsonl: .*it covers \d+ characters of the response, the pretrained"):
        kdleak.audit(None, *long, logprobs=files, pretrained=base, **how)
    one = kdleak.audit(None, *long, logprobs=files, pretrained=base, **how, **limits)
    other = kdleak.audit(student, *long, pretrained=base, **how, **limits)
    assert one.verdict == other.verdict and one.figures["cut"] == other.figures["cut"]
    assert one.figures["cut"]["responses"] > 0


def test_an_endpoint_that_dies_half_way_loses_nothing(student, base, from_folder, tmp_path):
    def dies(number, body, _):
        return (0, {}, b"") if number > 2 else None

    with completions_server(student, dies) as served:
        with pytest.raises(KdleakError, match=r"no answer in 6 tries \(.*\); the same command goes on where it was"):
            endpoint(served.url, student, base, tmp_path)
        before = served.texts
        port = int(served.url.rpartition(":")[2].removesuffix("/v1"))
    assert before == 32
    with completions_server(student, port=port) as served:
        result = endpoint(served.url, student, base, tmp_path)
        assert served.texts == 2 * N * 3 - before  # the records, lower-cased, behind a prefix
        asked = served.asked
        endpoint(served.url, student, base, tmp_path)
        assert served.asked == asked
    same(from_folder, result)


def test_what_passes_is_tried_again_and_the_key_is_told_to_nobody(student, base, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDLEAK_API_KEY", "sk-secret")

    def stumbles(number, body, found):
        return {
            1: (429, {"Retry-After": "0.01"}, b"{}"),
            2: (503, {}, b"busy"),
            4: (0, {}, b""),
            5: (200, {"Content-Length": "100000", "Connection": "close"}, b"{"),
        }.get(number)

    options = {"attacks": ["loss"], "rate": 1000.0, "out": tmp_path / "out"}
    with completions_server(student, stumbles) as served:
        endpoint(served.url, student, base, tmp_path, **options)
        assert served.headers["Authorization"] == "Bearer sk-secret" and served.texts == 2 * N
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    said = capsys.readouterr()
    assert b"sk-secret" not in written and "sk-secret" not in said.out + said.err


def test_an_endpoint_that_never_finishes_an_answer_is_left(student, base, tmp_path, monkeypatch):
    monkeypatch.setattr(http_client, "TIMEOUT", 3.0)
    monkeypatch.setattr(http_client, "TRIES", 1)
    with (
        completions_server(student, lambda number, body, found: (200, {"Content-Length": "100000"}, b"{")) as served,
        pytest.raises(KdleakError, match="no answer in 1 tries"),
    ):
        endpoint(served.url, student, base, tmp_path, attacks=["loss"])


def changed(found, **fields):
    for choice in found["choices"]:
        choice["logprobs"] |= fields
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda f: (401, {}, b"sk-secret"), "it answers 401: it refuses the key; set KDLEAK_API_KEY"),
        (lambda f: (404, {}, b""), "it answers 404: it has no such path or model; give the address that ends in /v1"),
        (lambda f: (400, {}, b""), "it answers 400: it takes no such request (token ids, echo, logprobs), or is none"),
        (lambda f: (302, {"Location": "http://elsewhere"}, b""), "it answers 302: "),
        (lambda f: (200, {}, b"<html>"), "its answer is not JSON; is it such an endpoint?"),
        (lambda f: (200, {}, b"[" * 100_000), "its answer is not JSON; is it such an endpoint?"),
        (lambda f: (200, {}, b" " * 30_000_000), "an answer of more than"),
        (lambda f: (200, {}, b'{"choices": []}'), "not one choice for each of 16 texts"),
        (lambda f: (200, {}, json.dumps(f | {"choices": f["choices"][:1] * 16}).encode()), "its choices do not say"),
        (lambda f: (200, {}, json.dumps(f | {"usage": {"prompt_tokens": 3}}).encode()), "it read 3 tokens where"),
        (lambda f: (200, {}, changed(f, token_logprobs=[-1.0, -1.0])), "2 log-probs for a text of"),
        (lambda f: (200, {}, changed(f, token_logprobs=None)), "gives no log-probs of a text that it is sent (echo)"),
        (
            lambda f: (200, {}, changed(f, token_logprobs=[2.0] * len(f["choices"][0]["logprobs"]["token_logprobs"]))),
            "an answer that is none (",
        ),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_ends_in_one_line_that_quotes_nothing_of_it(answer, said, student, base, tmp_path):
    with (
        completions_server(student, lambda number, body, found: answer(found)) as served,
        pytest.raises(KdleakError) as caught,
    ):
        endpoint(served.url, student, base, tmp_path, attacks=["loss"])
    line = str(caught.value)
    assert said in line and line.startswith(f"--endpoint student: {served.url}") and "\n" not in line
    assert "secret" not in line and "elsewhere" not in line


def test_an_endpoint_of_several_models_is_asked_for_one_by_name(student, base, tmp_path):
    with completions_server(student, models=("big", "small")) as served:
        with pytest.raises(KdleakError, match=r"has 'big', 'small'; name one: --endpoint student …/v1#NAME"):
            endpoint(served.url, student, base, tmp_path)
        result = endpoint(f"{served.url}#small", student, base, tmp_path, attacks=["loss"])
    assert result.figures["inputs"]["models"]["student"]["name"].endswith("/v1#small")


@pytest.mark.parametrize(
    ("address", "key", "said"),
    [
        ("ftp://host/v1", "", "no address of an endpoint; write http(s)://host:port/v1"),
        ("http://host:99999/v1", "", "no address of an endpoint"),
        ("http://user:sk-secret@host/v1", "", "an address holds no user, password or query; a key goes into"),
        ("http://host/v1?key=sk-secret", "", "an address holds no user, password or query"),
        ("http://192.0.2.1/v1", "sk-secret", "a key goes over https alone; use https, or unset KDLEAK_API_KEY"),
        ("https://192.0.2.1/v1", "sk-\nsecret", "it holds characters that no header may; set it again"),
        ("http://127.0.0.1:9/v1", "", "no answer in 6 tries (connection refused)"),
        ("http://nowhere.invalid/v1", "", "cannot be reached ("),
    ],
)
def test_an_address_that_is_not_safe_is_refused_and_not_quoted(address, key, said, student, tmp_path, monkeypatch):
    monkeypatch.setenv("KDLEAK_API_KEY", key)
    with pytest.raises(KdleakError) as caught:
        kdleak.audit(student, MEMBERS, NONMEMBERS, endpoints={"student": address})
    assert said in str(caught.value) and "secret" not in str(caught.value)


def test_where_a_model_is_must_be_said_once(student, file):
    def refused(student=None, **options) -> str:
        with pytest.raises(KdleakError) as caught:
            kdleak.audit(student, MEMBERS, NONMEMBERS, **options)
        return str(caught.value)

    assert refused() == "no student: name one by --student, or by --logprobs student=FILE"
    assert "the student is named by another option too; take one away" in refused(student, logprobs={"student": file})
    assert "whose tokenizer? name its folder by --teacher" in refused(
        student, endpoints={"teacher": "http://127.0.0.1"}
    )
    assert "no folder here; a model behind an endpoint needs that of its tokenizer" in refused(
        "org/name", endpoints={"student": "http://127.0.0.1/v1"}
    )
    assert "requests a second are more than 0" in refused(student, rate=0.0)


def test_options_name_a_model_each_once_and_answers_that_cannot_be_kept_are_one_line(tmp_path, monkeypatch):
    assert by_role(["student=a=b", "teacher=c"], "--logprobs", ROLES) == {"student": "a=b", "teacher": "c"}
    with pytest.raises(KdleakError, match="--logprobs: it names no model; did you mean 'student'"):
        by_role(["studnt=a"], "--logprobs", ROLES)
    with pytest.raises(KdleakError, match="--endpoint: the student is named twice; name it once"):
        by_role(["student=a", "student=b"], "--endpoint", ROLES)
    (tmp_path / "endpoint-answers.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(KdleakError, match=r"endpoint-answers.sqlite: cannot be used \(.*\); free the disk, or delete"):
        AnswerStore(tmp_path, "m")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(KdleakError, match="an endpoint is asked by one process; run the audit without torchrun"):
        next(_answers(None, [], None))


def test_an_answer_is_found_again_by_model_and_text_alone(tmp_path):
    store, other = AnswerStore(tmp_path, "m"), AnswerStore(tmp_path, "n")
    values, missed = np.array([-0.5, -2.25], np.float32), np.array([True, False])
    store.put([(1, 2, 3), (4, 5, 6)], [(values, missed), (values, None)])
    found = store.get((1, 2, 3))
    assert (found[0] == values).all() and (found[1] == missed).all() and store.get((4, 5, 6))[1] is None
    assert store.get((1, 2)) is None and other.get((1, 2, 3)) is None


def test_the_command_line_writes_a_file_and_audits_it(student, tmp_path, monkeypatch, capsys):
    lists = []
    for name, rows in (("members", MEMBERS), ("nonmembers", NONMEMBERS)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        lists += [f"--{name}", f"{name}.jsonl"]
    kdleak_ = CommandLine(monkeypatch, capsys)
    write = ("logprobs", "--model", str(student), *lists, "--template", TEMPLATE, "--quick")
    assert kdleak_(tmp_path, *write, "--out", "s.txt") == (
        1, "kdleak: error: --out s.txt: a log-prob file's name ends in .jsonl; name it so\n",
    )  # fmt: skip
    assert kdleak_(tmp_path, *write, "--out", "s.jsonl")[0] == 0
    assert "logprobs: 48 records -> s.jsonl" in kdleak_.printed
    assert kdleak_(tmp_path, "audit", *lists, "--logprobs", "student=s.jsonl", "--attacks", "loss,minkpp")[0] == 0
    assert "kdleak-audit/audit.json" in kdleak_.printed
