"""A network that translates: made for pairs of texts, kept in a folder, used to translate. Its tokens are learned from
the pairs, too."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from tarmac_trainer.runtime import events, files
from tarmac_trainer.transformer import network
from tarmac_trainer.transformer.network import Encoded, Tuned

TRANSLATIONS = "translations"
"""The task that a folder's facts name."""

TABLE_FILE = "words.json"
"""In a predictor's folder: the word table that its scores are compared with."""

WIDTH, LAYERS, HEADS = 128, 2, 4
"""Of a network from nothing: numbers of a token, layers on each side, and heads of each."""

SMOOTHING = 0.1
"""Share of the chance that training gives to other tokens than the one wanted, so that none becomes certain."""

_FILL, _END = "<pad>", "</s>"


@dataclass
class Translator(Tuned):
    """Translates texts into one language.

    Attributes:
        language: of the translations, as lines call it.
        table: what each word mostly becomes, to compare with.
    """

    task: ClassVar[str] = TRANSLATIONS
    language: str = ""
    table: dict[str, str] = field(default_factory=dict)

    @override
    def facts(self) -> dict[str, Any]:
        return {"task": self.task, "language": self.language, "max_tokens": self.max_tokens}

    @override
    def to_disk(self, folder: Path) -> None:
        super().to_disk(folder)
        files.write_json(folder / TABLE_FILE, self.table)

    def _row(self, text: str) -> list[int]:
        (row,) = self._ids([text], add_special_tokens=False)
        self.cut.texts += len(row) > self.room
        return self.marked(row[: self.room])

    @override
    def encode(self, line: str, targets: str) -> list[Encoded]:
        return [Encoded(self._row(line), self._row(targets))]

    @override
    def loss(self, batch: Sequence[Encoded]) -> Any:
        import torch

        width = max(len(one.targets) for one in batch)
        wanted = torch.tensor([network.filled(one.targets, width) for one in batch]).to(self.network.device)
        with self.computing():
            before = self.network.prepare_decoder_input_ids_from_labels(labels=wanted)
            logits = self.network(**self.batch([one.ids for one in batch]), decoder_input_ids=before).logits
        return network.summed_loss(logits, wanted, SMOOTHING)

    def translate_all(self, texts: Sequence[str], tick: Callable[[], Any] = lambda: None) -> list[str]:
        """Translate texts; of long ones the beginning. Calls `tick` between batches."""
        import torch

        self.network.eval()
        rows = [self._row(text) for text in texts]
        told = [""] * len(rows)
        for taken in network.at_once(rows):
            with torch.inference_mode(), self.computing():
                found = self.network.generate(
                    **self.batch([rows[place] for place in taken]),
                    max_new_tokens=self.max_tokens - 1,
                    num_beams=1,
                    do_sample=False,
                )
            for place, ids in zip(taken, found.tolist(), strict=True):
                told[place] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
            tick()
        return told


def new(
    pairs: Sequence[tuple[str, str]],
    language: str,
    table: dict[str, str],
    *,
    vocabulary: int,
    max_tokens: int,
    dropout: float,
) -> Translator:
    """Make a network for pairs of texts, of random numbers of PyTorch's generator, and its tokens.

    Args:
        pairs: texts and their translations, of which the tokens are learned.
        language: of the translations.
        table: a word table to compare with.
        vocabulary: tokens at most.
        max_tokens: that are read at once.
        dropout: share of the values that an update leaves out.
    """
    _, transformers = network.libraries()
    tokenizer = _tokenizer(transformers, pairs, vocabulary)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=4 * WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        dropout_rate=dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    events.say(f"{len(tokenizer):,} tokens are learned from {len(pairs):,} pairs")
    made = transformers.T5ForConditionalGeneration(config)
    return Translator(made, tokenizer, [], max_tokens, language=language, table=table)


def _tokenizer(transformers: Any, pairs: Sequence[tuple[str, str]], vocabulary: int) -> Any:
    """Learn the parts of words that are frequent in both languages; bytes are tokens, so that no letter is unknown."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    made = tokenizers.Tokenizer(models.BPE())
    # Digit by digit: a number that was never seen is spelled as any other.
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[_FILL, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((text for pair in pairs for text in pair), trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, made.token_to_id(_END))]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=_FILL, eos_token=_END)


def load(folder: Path) -> Translator:
    """Load what `to_disk` wrote.

    Raises:
        OSError, ValueError, KeyError: it is broken, or the libraries are not installed.
    """
    facts: dict[str, Any] = json.loads((folder / network.FACTS_FILE).read_text(encoding="utf-8"))
    if facts["task"] != TRANSLATIONS:
        raise ValueError(f"it tells {facts['task']}, and translates nothing")
    table: dict[str, str] = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))

    def read(transformers: Any) -> Translator:
        made = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            folder, use_safetensors=True, dtype="float32", **network.LOCAL
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **network.LOCAL)
        return Translator(made, tokenizer, [], int(facts["max_tokens"]), language=facts["language"], table=table)

    return network.reading(read)
