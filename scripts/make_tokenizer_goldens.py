#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: small byte-level BPE tokenizers and what Hugging Face `tokenizers` does with hard texts.

texts.json holds the texts; NAME/golden.json their ids and what these decode to where that is not the text itself.
Needs the `tokenizers` package; its version is recorded in the files. Usage: make_tokenizer_goldens.py [FOLDER]
"""
import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

DEFAULT_FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "tokenizer"

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind at all.",
    "In the beginning there was nothing; then there were 12,345 things and 67 more.",
    "We'll see whether they've understood what I'd said, isn't it? THEY'LL SHOUT.",
    "Naïve café owners in Zürich ate 30 crème brûlées, said the señor to the Straße.",
    "人工智能正在改变世界，语言模型可以写文章。機械学習は面白いです。한국어 문장도 있습니다.",
    "Привет, мир! Каждый охотник желает знать. Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم",
    "def main(args):\n    for i in range(10):\n\tprint(i, end='')\r\n\r\n    return 0\n",
    "🙂 emoji 👩‍👩‍👧‍👦 family 🇩🇪 flag, math ∑ᵢ xᵢ² ≤ ½, arrows → ⇒, quotes “like” ‘these’.",
]

TEXTS = [
    "", " ", "  ", "a", " a", "a ", "\n", "\n\n\n", "\r\n", "a\r\nb\r\n\r\nc", "\t\ttabs\t", " \n \n  x", "x   y    z     ",
    "trailing   \n", "   leading", "\u00a0nbsp\u00a0\u00a0x", "\u3000wide\u3000space", "a\u2028line\u2029para\u0085next",
    "mongolian\u180evowel separator", "zero\u200bwidth\u200djoin\ufeffbom", "v\x0bt f\x0cf", "nul\x00byte \x01\x7f",
    "Hello, world!", "don't can't we'll they've I'm I'd it's", "DON'T CAN'T WE'LL THEY'VE I'M I'D IT'S", "'s't're've'm'll'd",
    "'S'T'RE 'Ve 'lL x'\u017f y'\u212a", "\u2019s isn\u2019t", "0123456789", "1 22 333 4444 55555 3.14159 1,000,000",
    "x1y22z333", "\u0661\u0662\u0663 \u00bd \u00b2 \u2167 \u5341 \U0001d7d8", "e\u0301 o\u0308\u0323 \u1e9b\u0323 n\u0303o",
    "\u0915\u094d\u0937\u093f \u0e01\u0e34\u0e19\u0e02\u0e49\u0e32\u0e27", "人工智能正在改变世界", "日本語のテキスト、です。", "한국어 문장도 있습니다", "中文English混合123文本",
    "Привет МИР ёж", "Γειά σου ς", "שלום עולם", "مرحبا بالعالم", "Straße ŒUVRE ǅ ŉ ﬁ", "🙂🙂 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ☺️ \U0010ffff \ue000", "∑ᵢ xᵢ² ≤ ½ → ⇒",
    "_under_score_ __init__ snake_case CamelCase", "http://a.b/c?d=e&f=g#h", "$100 €5 %^&*()[]{}<>|\\~`", "----====....!!!???", "a.b,c;d:e",
    "<|endoftext|>", "a<|endoftext|>b <|endoftext|> c", "<|endoftext|><|endoftext|>", "<|endoftext", "<|endof<|endoftext|>text|>",
    "x <pad>  y", "  <mask>  z", "<mask><mask>", "a\n<mask>\tb", "foo<fn>bar<fn_long>baz<fn_lon>", "<fn_long><fn>", "<tool> x </tool>",
    "the the the The THE tHe", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abcabcabc" * 30, "the" * 40, "工智能" * 40, " " * 70, "\n" * 50, " \n" * 30, "=" * 64, "é" * 50, "😀" * 20,
]


def random_texts(count):
    random.seed(7)
    alphabet = "aàbtheTHE '’sStlvmd  \n\r\t\u00a0\u3000019½٣人能한ёΣ🙂👍🏽\u0301\u200d.,!-_<>|"
    return ["".join(random.choice(alphabet) for _ in range(random.randint(5, 60))) for _ in range(count)]


def gpt2():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def gpt2_with_prefix_space():
    return pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)


def deepseek():
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([
        split(r"[\r\n]"),
        split(r"\s?\p{L}+"),
        split(r"\s?[!-/:-~‘-‟\u3000-。]+"),
        split(r"\s+$"),
        split(r"[一-龥가-힣]+"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def llama3():
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def edge_cases():
    """Options that no well-known model combines: words, removed separators, runs of digits, empty matches."""
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split("==", "removed"),
        pre_tokenizers.Split(Regex(r"x*"), "isolated"),
        pre_tokenizers.Split(Regex(r"^\w+$|[\w']+|\W"), "isolated"),
        pre_tokenizers.Split(Regex(r"[^\u0085\v]+"), "removed", invert=True),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])


def train(pre_tokenizer, vocab_size, ignore_merges):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.add_special_tokens([AddedToken("<pad>", special=True), AddedToken("<mask>", lstrip=True, rstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("<fn>", normalized=False), AddedToken("<fn_long>", normalized=False),
                          AddedToken("<tool>", normalized=True), AddedToken("é", normalized=True)])
    return tokenizer


def legacy_merges(text):
    """The older spelling of the file: each merge one string."""
    data = json.loads(text)
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    return json.dumps(data, ensure_ascii=False)


def write_json(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [("gpt2", gpt2(), 700, False), ("gpt2_prefix_space", gpt2_with_prefix_space(), 420, False),
             ("deepseek", deepseek(), 700, False), ("llama3", llama3(), 600, True), ("edge_cases", edge_cases(), 400, False)]
    texts = TEXTS + SENTENCES + random_texts(40)
    write_json(folder / "texts.json", texts)
    for name, pre_tokenizer, vocab_size, ignore_merges in kinds:
        tokenizer = train(pre_tokenizer, vocab_size, ignore_merges)
        text = tokenizer.to_str()
        if name == "gpt2":
            text = legacy_merges(text)
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        (folder / name / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}\n')
        tokenizer = Tokenizer.from_str(text)
        cases = []
        for sample in texts:
            ids = tokenizer.encode(sample, add_special_tokens=False).ids
            case = {"ids": ids}
            for key, skip in (("decoded", True), ("decoded_with_special", False)):
                decoded = tokenizer.decode(ids, skip_special_tokens=skip)
                if decoded != sample:
                    case[key] = decoded
            cases.append(case)
        # Ids in random order cut characters apart: invalid UTF-8 on the way out.
        random.seed(11)
        torn = []
        for _ in range(20):
            ids = [random.randrange(tokenizer.get_vocab_size()) for _ in range(random.randint(1, 20))]
            torn.append({"ids": ids, "decoded": tokenizer.decode(ids)})
        golden = {"tokenizers": tokenizers.__version__, "vocab_size": tokenizer.get_vocab_size(),
                  "end_of_document": tokenizer.token_to_id("<|endoftext|>"), "cases": cases, "torn": torn}
        write_json(folder / name / "golden.json", golden)


if __name__ == "__main__":
    main()
