from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.models.text import Tokenizer, normalise, train_tokenizer
from musiva.models.text.unigram_train import fit_unigram

WORDS = ["red", "fox", "cat", "smiling", "face", "hand", "waving", "heart", "fire", "tree"]
WORDS += ["flying", "jumped", "jumping", "walks", "Été", "café", "日本", "сердце", "وجه", "straße"]
WORDS += ["½", "e-mail", "don't"]


def captions(count: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=6)) for _ in range(count)]


CAPTIONS = captions(500)
ODD_TEXTS = (
    "",
    " ",
    "\t\n\r",
    "a red fox",
    "  a  red\t\tfox \n",
    "A RED Fox JUMPED",
    "don't!!! (really?)",
    "日本の顔 日本",
    "e\u0301te\u0301 café \u00e9",
    "ｆｕｌｌｗｉｄｔｈ ① ½ ﬁre",
    "👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 🔥fire",
    "وجه مبتسم \u202bfox\u202c \u200fred",
    "zero\u200bwidth no\u00a0break soft\u00adhyphen \ufeffmark",
    "null\x00 bell\x07 escape\x1b",
    "▁▁fox ▁ _fox_",
    "İSTANBUL ΣΊΣΥΦΟΣ straße STRASSE",
    "<pad> fox</s> cat <unk> </s></s>",
    " <extra_id_0> fox <extra_id_7>cat<extra_id_99>",
    "https://example.org/?q=fox&n=1#heart",
    "x" * 300,
    "fox " * 400,
    "火" * 200,
)
EXTRA_IDS = [f"<extra_id_{index}>" for index in range(100)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "tokenizer"
    train_tokenizer(CAPTIONS, 160, directory, 2000)
    return directory


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS),
        model_writer=model,
        vocab_size=110,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        minloglevel=2,
    )
    return model.getvalue()


def spiece_folder(directory: Path, model: bytes, **config: object) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "spiece.model").write_bytes(model)
    stated = {"tokenizer_class": "T5Tokenizer", "model_max_length": 2000, **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(stated))
    return directory


def hub_config(pieces: int) -> dict[str, object]:
    """What the published T5 folders say of their tokens."""
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    decoder = {
        str(index): {"content": token, **plain, "special": True}
        for index, token in enumerate(("<pad>", "</s>", "<unk>"))
    }
    for index, token in enumerate(reversed(EXTRA_IDS)):
        loose = {"lstrip": True, "rstrip": True}
        decoder[str(pieces + index)] = {"content": token, **plain, **loose, "special": True}
    return {
        "added_tokens_decoder": decoder,
        "additional_special_tokens": EXTRA_IDS,
        "extra_ids": 100,
    }


def assert_same_ids(directory: Path) -> None:
    ours = Tokenizer.load(directory)
    theirs = transformers.T5Tokenizer.from_pretrained(directory)
    assert ours.vocab_size == len(theirs)
    assert ours.max_length == theirs.model_max_length
    for text in (*ODD_TEXTS, *map(normalise, ODD_TEXTS), *CAPTIONS[:50]):
        assert ours.encode(text) == theirs(text).input_ids, repr(text)


def test_a_trained_folder_gives_the_ids_of_transformers(trained: Path) -> None:
    assert_same_ids(trained)
    assert type(transformers.AutoTokenizer.from_pretrained(trained)).__name__ == "T5Tokenizer"


@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_gives_the_ids_of_transformers(trained: Path, text: str) -> None:
    theirs = transformers.T5Tokenizer.from_pretrained(trained)
    assert Tokenizer.load(trained).encode(text) == theirs(text).input_ids


def test_a_bare_spiece_model_gives_the_ids_of_transformers(tmp_path: Path, spiece: bytes) -> None:
    assert_same_ids(spiece_folder(tmp_path, spiece))


def test_a_published_spiece_folder_gives_the_ids_of_transformers(
    tmp_path: Path, spiece: bytes
) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=spiece).get_piece_size()
    assert_same_ids(spiece_folder(tmp_path, spiece, **hub_config(pieces)))


def test_a_spiece_model_gives_the_ids_of_sentencepiece(tmp_path: Path, spiece: bytes) -> None:
    ours = Tokenizer.load(spiece_folder(tmp_path, spiece))
    original = sentencepiece.SentencePieceProcessor(model_proto=spiece)
    for text in CAPTIONS[:200]:
        assert ours.encode(text) == [*original.encode(text), 1]


def test_a_saved_transformers_tokenizer_is_read_back(tmp_path: Path, spiece: bytes) -> None:
    theirs = transformers.T5Tokenizer.from_pretrained(spiece_folder(tmp_path, spiece))
    theirs("fox", padding="max_length", max_length=9, truncation=True)
    saved = tmp_path / "saved"
    theirs.save_pretrained(saved)
    assert (saved / "tokenizer.json").is_file()
    assert_same_ids(saved)


def test_training_numbers_the_special_tokens_as_t5(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained)
    backend = tokenizer.backend
    assert [backend.token_to_id(t) for t in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    assert tokenizer.eos_id == 1
    assert tokenizer.vocab_size <= 160
    assert backend.encode("the ☃").ids[-2:] == [2, 1]


def test_frequent_words_become_pieces(trained: Path) -> None:
    tokens = Tokenizer.load(trained).backend.encode("red fox jumping").tokens
    assert tokens == ["▁red", "▁fox", "▁jumping", "</s>"]


def test_the_same_captions_give_the_same_files(trained: Path, tmp_path: Path) -> None:
    train_tokenizer(CAPTIONS, 160, tmp_path, 2000)
    for file in trained.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_a_vocabulary_smaller_than_the_alphabet_reads_the_rest_as_unknown(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["aaa aa ab", "ab abc d", "日本"], 8, tmp_path, 50)
    assert tokenizer.vocab_size == 8
    assert tokenizer.encode("a 日")[-2:] == [2, 1]
    assert 2 not in tokenizer.encode("ab a")


@given(
    words=st.lists(st.text("abc日", min_size=1, max_size=30), min_size=1, max_size=30),
    size=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_a_fitted_vocabulary_is_a_distribution_of_the_size_asked(
    words: list[str], size: int
) -> None:
    pieces = fit_unigram(words, size)
    assert 1 <= len(pieces) <= size
    assert len({piece for piece, _ in pieces}) == len(pieces)
    assert sum(math.exp(score) for _, score in pieces) == pytest.approx(1)
    assert [score for _, score in pieces] == sorted((s for _, s in pieces), reverse=True)
    if size >= 5:
        assert set("".join(words)) <= {piece for piece, _ in pieces}


@pytest.mark.parametrize(
    ("captions", "size", "length", "field"),
    [
        ([], 100, 10, "captions"),
        (["", "  "], 100, 10, "captions"),
        (CAPTIONS, 7, 10, "vocab_size"),
        (CAPTIONS, 100, 0, "max_length"),
    ],
)
def test_training_refuses_what_cannot_work(
    tmp_path: Path, captions: list[str], size: int, length: int, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        train_tokenizer(captions, size, tmp_path / "tokenizer", length)
    assert caught.value.field == field
    assert not (tmp_path / "tokenizer").exists()


def test_the_rule_for_prompts_is_that_of_the_pixart_pipelines() -> None:
    from diffusers import PixArtSigmaPipeline

    pipeline = PixArtSigmaPipeline.__new__(PixArtSigmaPipeline)
    for text in ODD_TEXTS:
        assert [normalise(text)] == pipeline._text_preprocessing(text, clean_caption=False)


def test_a_long_prompt_is_refused_not_cut(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained, max_length=5)
    assert len(tokenizer.encode("fox cat fox cat")) == 5
    with pytest.raises(InvalidInput, match=r"prompt: .*at most 5 tokens, got \d+"):
        tokenizer.encode("fox cat fox cat fox cat")


def test_lone_surrogates_are_refused(trained: Path) -> None:
    with pytest.raises(InvalidInput, match="prompt"):
        Tokenizer.load(trained).encode("fox \ud83d cat")


@pytest.mark.parametrize(
    ("stated", "asked", "expected"),
    [(77, None, 77), (77, 300, 77), (512, 300, 300), (10**30, None, 512), (None, 120, 120)],
)
def test_the_smaller_length_counts(
    tmp_path: Path, trained: Path, stated: int | None, asked: int | None, expected: int
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    config = {} if stated is None else {"model_max_length": stated}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.load(tmp_path, max_length=asked).max_length == expected


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path, trained: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(trained / "tokenizer.json"))
    backend.enable_padding(length=32)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = "fox cat fox cat fox"
    assert Tokenizer.load(tmp_path).encode(text) == Tokenizer.load(trained).encode(text)


class TestBrokenFolders:
    def refused(self, directory: Path, *parts: str) -> None:
        with pytest.raises(BadCheckpoint) as caught:
            Tokenizer.load(directory)
        for part in (str(directory), *parts):
            assert part in str(caught.value)

    def test_nothing_there(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "neither tokenizer.json nor spiece.model")

    def test_a_cut_tokenizer_file(self, tmp_path: Path, trained: Path) -> None:
        whole = (trained / "tokenizer.json").read_bytes()
        (tmp_path / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
        self.refused(tmp_path, "not a tokenizer file")

    def test_a_tokenizer_without_an_eos(self, tmp_path: Path, trained: Path) -> None:
        content = json.loads((trained / "tokenizer.json").read_text())
        content["post_processor"] = None
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        self.refused(tmp_path, "does not end texts with '</s>'")

    @pytest.mark.parametrize("cut", [1, 10, 333, 2000, -1])
    def test_a_cut_spiece_model(self, tmp_path: Path, spiece: bytes, cut: int) -> None:
        self.refused(spiece_folder(tmp_path, spiece[:cut]), "spiece.model")

    def test_a_byte_pair_model(self, tmp_path: Path) -> None:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CAPTIONS),
            model_writer=model,
            vocab_size=110,
            model_type="bpe",
            minloglevel=2,
        )
        self.refused(spiece_folder(tmp_path, model.getvalue()), "Unigram")

    def test_other_special_tokens(self, tmp_path: Path) -> None:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CAPTIONS),
            model_writer=model,
            vocab_size=110,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        self.refused(spiece_folder(tmp_path, model.getvalue()), "<unk>", "as T5 numbers them")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("extra_ids", -1),
            ("extra_ids", "many"),
            ("added_tokens_decoder", ["<pad>"]),
            ("added_tokens_decoder", {"0": {"content": 7}}),
            ("added_tokens_decoder", {"first": {"content": "<pad>"}}),
            ("model_max_length", 0),
            ("model_max_length", "long"),
            ("eos_token", {"text": "</s>"}),
        ],
    )
    def test_bad_settings(self, tmp_path: Path, spiece: bytes, key: str, value: object) -> None:
        self.refused(spiece_folder(tmp_path, spiece, **{key: value}), key)
