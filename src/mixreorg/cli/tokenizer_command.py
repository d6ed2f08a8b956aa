"""``mixreorg data tokenizer``: learn a small vocabulary from the captions of a data set."""

from pathlib import Path
from typing import Annotated

import typer


def tokenizer(
    data: Annotated[
        list[str],
        typer.Option("--data", help="Shards (braces and globs), a folder or a captions file; repeat for several."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Tokenizer file to write (JSON).")],
    vocab_size: Annotated[
        int, typer.Option(help="Number of token ids, of which 514 are byte symbols and control tokens.")
    ] = 2048,
    context_length: Annotated[int, typer.Option(help="Token ids per caption.")] = 77,
) -> None:
    """Train a byte-pair tokenizer on captions, in any language."""
    # Imported here: these load numpy and the tokenizers library, which other commands' help does not need.
    from mixreorg.data.pairs import open_pairs
    from mixreorg.text.tokenizer import Tokenizer

    source = open_pairs(data)
    trained = Tokenizer.train(source.captions(), vocab_size=vocab_size, context_length=context_length)
    trained.save(out)
    typer.echo(f"{out}: {trained.vocab_size:,} token ids from the captions of {len(source):,} pairs")
    if source.problems:
        typer.echo(f"left out:\n{source.problems.summary()}", err=True)
