"""A segmenter with the methods that classes of the Hugging Face ecosystem have."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import torch

from mixreorg.interop.convert import Target, convert_model
from mixreorg.interop.groupvit_checkpoint import weight_file
from mixreorg.interop.hf_folder import inexpressible
from mixreorg.interop.hub import locate, push_to_hub
from mixreorg.interop.loading import load_model
from mixreorg.interop.model_card import CARD, CardFacts, license_of
from mixreorg.models.folder import save_model
from mixreorg.segment.calibration import CALIBRATION_FILE, Calibration
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter


class PretrainedSegmenter(Segmenter):
    """:class:`~mixreorg.segment.segmenter.Segmenter` from and to folders and the hub.

    The methods have the names of ``huggingface_hub.ModelHubMixin``. That class itself is no base of this one: its
    library is optional, and reads no model but its own.

    >>> segmenter = PretrainedSegmenter.from_pretrained("groupvit-gcc-yfcc")
    >>> segmenter.push_to_hub("OWNER/NAME", private=True)
    """

    source_license: str | None = None
    """Licence of the weights by the card that :meth:`from_pretrained` found beside them."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        protocol: Protocol | None = None,
        window_batch: int = 8,
        calibration: Calibration | Path | str | None = None,
    ) -> Self:
        """Load a model of any origin.

        Args:
            source: whatever :func:`~mixreorg.interop.loading.load_model` reads: a path, or a name on the hub.
            device: where the weights go.
            protocol: sizes, templates, background. By default the one saved with the model, else GroupViT's.
            window_batch: windows encoded at once.
            calibration: or its file. By default the one saved with the model, where there is one.

        Raises:
            MixreorgError: as ``load_model``; or a calibration of another model or protocol.
        """
        path = locate(source)
        segmenter = cls(load_model(path, device), protocol, window_batch, calibration)
        segmenter.source_license = license_of(weight_file(path).parent / CARD)
        return segmenter

    def save_pretrained(self, folder: str | Path, *, facts: CardFacts | None = None, overwrite: bool = False) -> Path:
        """Write the model with its protocol, the calibration that holds for both, and a model card.

        The folder is one of ``transformers``, or one of this package where ``transformers`` does not have the
        architecture.

        Args:
            folder: to create.
            facts: for the model card; its licence is that of the card of :meth:`from_pretrained`'s source unless they
                say otherwise.
            overwrite: replace an earlier one.

        Returns:
            ``folder``.

        Raises:
            MixreorgError: as :func:`~mixreorg.interop.convert.convert_model`.
        """
        facts = facts or CardFacts()
        facts = replace(facts, license=facts.license or self.source_license)
        layout: Target = "native" if inexpressible(self.model.config, "hf") else "hf"
        with TemporaryDirectory() as temporary:
            native = Path(temporary) / "model"
            save_model(self.model, native, self.protocol.to_dict())
            calibration = self.calibration_source.of(self.protocol)
            if calibration is not None:
                calibration.save(native / CALIBRATION_FILE)
            return convert_model(native, folder, layout, facts=facts, overwrite=overwrite)

    def push_to_hub(
        self, repo: str, *, facts: CardFacts | None = None, private: bool = False, message: str | None = None
    ) -> str:
        """Put on the hub what :meth:`save_pretrained` writes.

        Args:
            repo: ``OWNER/NAME``; made where there is none.
            facts: for the model card; its name is ``repo`` unless it says otherwise.
            private: of a new repository.
            message: of the commit.

        Returns:
            The address of the commit.

        Raises:
            MixreorgError: as :func:`~mixreorg.interop.hub.push_to_hub`.
        """
        facts = facts or CardFacts()
        with TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "model", facts=replace(facts, name=facts.name or repo))
            return push_to_hub(folder, repo, private=private, message=message)
