"""Claims on endpoints that give text alone: what a served student writes is attacked, and nothing else is claimed."""

from typing import Any

import pytest

import kdleak
from kdleak.core.errors import KdleakError
from kdleak.inference import http_client
from kdleak.inference.answer_store import AnswerStore
from tests.support.completions_server import completions_server
from tests.support.standalone_models import model_that_knows, people, tokenizer_of

N = 24
MEMBERS, NONMEMBERS = people(N, 1), people(N, 2)
HOW: dict[str, Any] = {"template": "{instruction}\n", "attacks": ["loss", "lowercase", "continuation"]}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return model_that_knows(MEMBERS[:16], tmp_path_factory.mktemp("text") / "student", tokenizer_of(people(12, 3)))


@pytest.fixture(scope="module")
def from_folder(student):
    return kdleak.audit(student, MEMBERS, NONMEMBERS, **HOW)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "FIRST_WAIT", 0.001)
    monkeypatch.delenv("KDLEAK_API_KEY", raising=False)


def served(url, student, tmp_path, **options):
    how = {"endpoints": {"student": url}, "cache": tmp_path / "cache", **HOW, **options}
    return kdleak.audit(student, MEMBERS, NONMEMBERS, **how)


@pytest.mark.parametrize("path", ["", "/chat/completions"])
def test_what_it_writes_is_scored_as_the_folders_own_continuations_are(path, student, from_folder, tmp_path):
    with completions_server(student, text_alone=True) as server:
        result = served(server.url + path, student, tmp_path)
    assert result.table["continuation"].tolist() == from_folder.table["continuation"].tolist()
    assert set(result.figures["membership"]["attacks"]) == {"continuation"} and result.figures["memorization"] is None
    assert result.figures["left_out"] == {
        "loss": "needs the log-probs of the records' tokens, which an endpoint of text alone does not give",
        "lowercase": "needs log-probs, which an endpoint of text alone does not give",
    }
    assert result.auc > 0.6


def test_a_text_is_continued_from_its_first_tokens(student, tmp_path):
    lists = [[{"text": f"{row['instruction']}\n{row['response']}"} for row in rows] for rows in (MEMBERS, NONMEMBERS)]
    how: dict[str, Any] = {"attacks": ["continuation"], "cache": tmp_path / "cache"}
    folder = kdleak.audit(student, *lists, **how)
    with completions_server(student, text_alone=True) as server:
        result = kdleak.audit(student, *lists, endpoints={"student": server.url}, **how)
    assert result.table["continuation"].tolist() == folder.table["continuation"].tolist()


def test_a_run_that_was_stopped_goes_on_and_a_second_one_asks_nothing(student, from_folder, tmp_path):
    def dies(number, body, _):
        return (0, {}, b"") if number > 3 else None

    with completions_server(student, dies, text_alone=True) as server:
        with pytest.raises(KdleakError, match="the same command goes on where it was"):
            served(server.url, student, tmp_path)
        port = int(server.url.rpartition(":")[2].removesuffix("/v1"))
    with completions_server(student, port=port, text_alone=True) as server:
        result = served(server.url, student, tmp_path)
        assert server.texts == 16 + 16  # one try for log-probs, and what was not kept
        asked = server.asked
        served(server.url, student, tmp_path)
        assert server.asked == asked + 1  # the try
    assert result.table["continuation"].tolist() == from_folder.table["continuation"].tolist()


def test_a_server_that_refuses_echo_is_asked_for_text(student, from_folder, tmp_path):
    def refuses(number, body, found):
        return (400, {}, b"{}") if body.get("echo") else None

    with completions_server(student, refuses, text_alone=True) as server:
        result = served(server.url, student, tmp_path)
    assert result.table["continuation"].tolist() == from_folder.table["continuation"].tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attacks": ["loss"]}, "only 'continuation' can run, which this audit leaves out"),
        ({"memorization": False}, "only 'continuation' can run, which this audit leaves out"),
    ],
)
def test_without_the_attack_on_text_nothing_is_asked_for(options, said, student, tmp_path):
    with completions_server(student, text_alone=True) as server, pytest.raises(KdleakError) as caught:
        served(server.url, student, tmp_path, **options)
    assert said in str(caught.value) and server.texts == 16


def test_a_choice_without_a_text_is_one_line(student, tmp_path):
    def empty(number, body, found):
        return None if body.get("echo") else (200, {}, b'{"choices": [{"message": {"content": 3}}]}')

    with completions_server(student, empty, text_alone=True) as server, pytest.raises(KdleakError) as caught:
        served(server.url + "/chat", student, tmp_path)
    assert "gave an answer that is none (a choice without a text)" in str(caught.value)


def test_a_reference_that_gives_text_alone_is_refused(student, tmp_path):
    how: dict[str, Any] = {**HOW, "attacks": ["ref_pretrained", "continuation"], "cache": tmp_path / "cache"}
    with completions_server(student, text_alone=True) as server, pytest.raises(KdleakError, match="echo"):
        kdleak.audit(student, MEMBERS, NONMEMBERS, pretrained=student, endpoints={"pretrained": server.url}, **how)


def test_what_was_written_is_found_again_by_prompt_and_length(tmp_path):
    store = AnswerStore(tmp_path, "m")
    store.put_texts([(1, 2), [{"role": "user", "content": "Who?"}]], ["a", "b"], 32)
    assert store.get_text((1, 2), 32) == "a" and store.get_text([{"role": "user", "content": "Who?"}], 32) == "b"
    assert store.get_text((1, 2), 16) is None and AnswerStore(tmp_path, "n").get_text((1, 2), 32) is None
