"""Losses as functions of embeddings; those of texts, and of whole images, are already gathered over all processes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mixreorg.distributed import gather, mean_over_processes

MixedLossForm = Literal["cross_entropy", "mixed_probability", "binary_cross_entropy", "dice"]

MISSING = -1e4
"""Similarity of a candidate that does not exist. Finite, because a share of exactly 0 times -inf would be NaN."""

# Below this share a patch gives a segment nothing; its log would be without a gradient or infinite.
_TINY = 1e-30


def scaled_similarity(rows: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """``scale * rows @ columns.T`` in float32 also under autocast: ``[..., E] x [T, E] -> [..., T]``."""
    with torch.autocast(rows.device.type, enabled=False):
        return scale.float() * (rows.float() @ columns.float().T)


def unit_length(embeddings: Tensor) -> Tensor:
    """L2-normalised embeddings ``[..., E]`` in float32 also under autocast, which on a CPU would round their length."""
    return F.normalize(embeddings.float(), dim=-1)


def contrastive_loss(image_embeddings: Tensor, text_embeddings: Tensor, scale: Tensor, rows: slice) -> Tensor:
    """Symmetric InfoNCE (GroupViT, section 3.2).

    Args:
        image_embeddings: ``[B, E]`` L2-normalised, all processes.
        text_embeddings: ``[B, E]`` L2-normalised, all processes, row i belonging to image i.
        scale: exponentiated logit scale.
        rows: this process's rows; the loss is their mean, against all columns.

    Returns:
        Scalar.
    """
    targets = torch.arange(len(text_embeddings), device=text_embeddings.device)[rows]
    image_logits = scaled_similarity(image_embeddings[rows], text_embeddings, scale)
    text_logits = scaled_similarity(text_embeddings[rows], image_embeddings, scale)
    return (F.cross_entropy(image_logits, targets) + F.cross_entropy(text_logits, targets)) / 2


def multi_label_loss(
    image_embeddings: Tensor,
    noun_embeddings: Tensor,
    owners: Tensor,
    labels: Tensor,
    scale: Tensor,
    rows: slice,
) -> Tensor:
    """Symmetric contrastive loss of images and noun prompts with several positives each (GroupViT, section 3.2).

    An image's target is uniform over the prompts whose labels are among its own prompts' labels, a prompt's target is
    uniform over the images that have a prompt of its label. With a label of its own for every prompt, these are an
    image's own prompts and a prompt's own image. Images without prompts are negatives of all prompts and have no row
    of their own; the two directions are means over the images that have prompts and over the prompts.

    Args:
        image_embeddings: ``[B, E]`` L2-normalised, all processes.
        noun_embeddings: ``[P, E]`` L2-normalised, all processes.
        owners: ``[P]`` int64 image of each prompt.
        labels: ``[P]`` int64 below P.
        scale: exponentiated logit scale.
        rows: this process's images; the mean over processes is the loss of the global batch.

    Returns:
        Scalar; 0 where no image has prompts.
    """
    if len(noun_embeddings) == 0:
        return 0.0 * (image_embeddings.float().sum() + scale.float())
    num_images, num_prompts = len(image_embeddings), len(noun_embeddings)
    # [B, P]: which labels an image has
    has = torch.zeros(num_images, num_prompts, dtype=torch.bool, device=labels.device)
    has[owners, labels] = True
    own = (owners >= rows.start) & (owners < rows.stop)
    image_logits = scaled_similarity(image_embeddings[rows], noun_embeddings, scale)
    noun_logits = scaled_similarity(noun_embeddings[own], image_embeddings, scale)
    of_images = _soft_target_loss(image_logits, has[rows][:, labels]) / has.any(dim=1).sum()
    of_nouns = _soft_target_loss(noun_logits, has[:, labels[own]].T) / num_prompts
    # These are sums over some rows, by the number of all: as many times too small as there are processes.
    num_shares = num_images / (rows.stop - rows.start)
    loss: Tensor = num_shares * (of_images + of_nouns) / 2
    return loss


def _soft_target_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Sum over rows of the cross-entropy with a target uniform over the positives; 0 for a row without any."""
    target = positive.to(logits.dtype)
    return F.cross_entropy(logits, target / target.sum(dim=1, keepdim=True).clamp(min=1), reduction="sum")


def mixed_loss(
    assignment: Tensor,
    similarity: Tensor,
    targets: Tensor,
    form: MixedLossForm,
    weights: Tensor | None = None,
    counted: float = 1.0,
) -> Tensor:
    """Loss of the mixed masks, in the forms that the paper leaves open.

    Args:
        assignment: ``[M, S, N]`` soft assignment of the patches of each mixed image; sums to 1 over S.
        similarity: ``[M, S, T]`` scaled similarity of each segment with each candidate text.
        targets: ``[M, N]`` int64, candidate that each patch's source image came with.
        form:
            ``cross_entropy``: of the mixed logits, ``sum_s A[s, n] similarity[s, t]``;
            ``mixed_probability``: negative log of the mixed probabilities,
            ``sum_s A[s, n] softmax_t(similarity[s, t])``;
            ``binary_cross_entropy``: every (patch, candidate) pair of the mixed logits on its own;
            ``dice``: overlap of each candidate's mixed-probability mask with its true mask.
        weights: ``[M, N]`` of the patches in the mean, of mean 1; None: all alike. Dice knows none.
        counted: share of each image's patches in the mean, those of the lowest loss, at least one. Dice takes all.

    Returns:
        Scalar mean over patches (dice: over the masks that exist).
    """
    with torch.autocast(assignment.device.type, enabled=False):
        assignment, similarity = assignment.float(), similarity.float()
        if form == "dice":
            return _dice(assignment, similarity.softmax(dim=-1), targets)
        losses = _patch_losses(assignment, similarity, targets, form)
        weighted = losses if weights is None else weights.float() * losses
        if counted == 1:
            return weighted.mean()
        best = losses.topk(max(1, round(counted * losses.shape[1])), dim=1, largest=False, sorted=False).indices
        return weighted.gather(1, best).mean()


def _patch_losses(assignment: Tensor, similarity: Tensor, targets: Tensor, form: MixedLossForm) -> Tensor:
    """``[M, N]``: every patch's own loss; arguments as in :func:`mixed_loss`."""
    if form == "mixed_probability":
        return -target_log_probability(assignment, similarity.log_softmax(dim=-1), targets)
    # [M, N, S] @ [M, S, T] -> [M, N, T]
    logits = assignment.transpose(1, 2) @ similarity
    if form == "cross_entropy":
        return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    truth = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # Candidates that a smaller last group lacks are masked out of the similarities and must not dilute the mean.
    exists = (similarity[:, :1] > MISSING / 2).to(losses.dtype)
    return (losses * exists).sum(dim=-1) / exists.sum(dim=-1)


def mixed_noun_loss(assignment: Tensor, similarity: Tensor, named: Tensor, targets: Tensor) -> Tensor:
    """Loss of the mixed masks over nouns: negative log of each patch's mixed probability of its own caption's nouns.

    Args:
        assignment: ``[M, S, N]`` as in :func:`mixed_loss`.
        similarity: ``[M, S, W]`` scaled similarity of each segment with each noun's prompt.
        named: ``[M, K, W]`` bool, which nouns the caption of each source image of a mixed image names.
        targets: ``[M, N]`` int64 below K, source that each patch came from.

    Returns:
        Scalar mean over the patches whose caption has nouns; 0 if there are none.
    """
    with torch.autocast(assignment.device.type, enabled=False):
        assignment, similarity = assignment.float(), similarity.float()
        log_probability = similarity.log_softmax(dim=-1)
        # One source after another: a tensor [M, S, K, W] would be the largest of the step.
        own = [log_probability.masked_fill(~words[:, None], MISSING).logsumexp(dim=-1) for words in named.unbind(1)]
        losses = -target_log_probability(assignment, torch.stack(own, dim=-1), targets)
        exists = named.any(dim=-1).gather(1, targets)
        return _mean_where(losses, exists)


def text_to_patch_loss(assignment: Tensor, similarity: Tensor, named: Tensor, targets: Tensor) -> Tensor:
    """Loss of the mixed masks from the texts' side: each text has to find the patches of its own images.

    A text attends to every mixed patch n of the global batch by ``sum_s A[s, n] exp(similarity[s, t])``; the loss is
    the negative log of the share of that attention which falls on patches whose source the text belongs to. One patch
    that the text fits is enough, so unlike the other side this does not ask the rest of the image to fit it too.

    Args:
        assignment: ``[M, S, N]`` as in :func:`mixed_loss`.
        similarity: ``[M, S, T]`` scaled similarity of each segment with each text; every process has the same T texts.
        named: ``[M, K, T]`` bool, which texts belong to each source image of a mixed image.
        targets: ``[M, N]`` int64 below K, source that each patch came from.

    Returns:
        Scalar mean over the texts that have patches in the mixed images of the global batch; 0 if there are none. It is
        the global batch's on every process, so its mean over processes is too.
    """
    with torch.autocast(assignment.device.type, enabled=False):
        assignment, similarity, named = assignment.float(), similarity.float(), named.float()
        source = F.one_hot(targets, named.shape[1]).to(assignment.dtype)
        # [M, S, N] @ [M, N, K]: how much of each source image every segment holds
        mass = assignment @ source
        exists = mean_over_processes(source.sum(dim=1).flatten() @ named.flatten(0, 1)) > 0
        attention = torch.stack(
            [_attention(similarity, mass @ named), _attention(similarity, mass.sum(dim=2, keepdim=True))]
        )
        own, everything = gather(attention[None]).logsumexp(dim=0)
        return _mean_where(everything - own, exists)


def _attention(similarity: Tensor, mass: Tensor) -> Tensor:
    """``[T]``: log of the attention that texts give to the patches of this process, of ``mass`` ``[M, S, T or 1]``."""
    empty = mass < _TINY
    log_mass = mass.masked_fill(empty, 1.0).log().masked_fill(empty, MISSING)
    return (similarity + log_mass).flatten(0, 1).logsumexp(dim=0)


def target_log_probability(assignment: Tensor, log_probability: Tensor, targets: Tensor) -> Tensor:
    """Log of each patch's mixed probability of its own text, without the ``[M, N, T]`` tensor of all texts.

    In log space, so that the most wrong patches, whose probability underflows, still have a gradient.

    Args:
        assignment: ``[M, S, N]`` float32, as in :func:`mixed_loss`.
        log_probability: ``[M, S, T]`` float32 of each segment's texts.
        targets: ``[M, N]`` int64.

    Returns:
        ``[M, N]``.
    """
    # [M, S, T] -> [M, S, N]: every segment's log probability of patch n's text
    wanted = log_probability.gather(2, targets[:, None, :].expand(-1, log_probability.shape[1], -1))
    empty = assignment < _TINY
    log_share = assignment.masked_fill(empty, 1.0).log().masked_fill(empty, MISSING)
    return torch.logsumexp(log_share + wanted, dim=1)


def mixed_probability(assignment: Tensor, similarity: Tensor) -> Tensor:
    """``[M, N, T]``: each patch's probability of each candidate; arguments as in :func:`mixed_loss`."""
    with torch.autocast(assignment.device.type, enabled=False):
        return assignment.float().transpose(1, 2) @ similarity.float().softmax(dim=-1)


def _dice(assignment: Tensor, probability: Tensor, targets: Tensor) -> Tensor:
    predicted = assignment.transpose(1, 2) @ probability
    truth = F.one_hot(targets, probability.shape[-1]).to(predicted.dtype)
    overlap = (predicted * truth).sum(dim=1)
    total = predicted.sum(dim=1) + truth.sum(dim=1)
    score = 1 - (2 * overlap + 1) / (total + 1)
    return _mean_where(score, truth.sum(dim=1) > 0)


def _mean_where(values: Tensor, exists: Tensor) -> Tensor:
    """Mean of the values that exist, 0 without any; the mean of it over processes is that of the global batch."""
    count = mean_over_processes(exists.sum())
    mean: Tensor = (values * exists).sum() / count.where(count > 0, 1.0)
    return mean


@torch.no_grad()
def mixed_mask_accuracy(assignment: Tensor, similarity: Tensor, targets: Tensor) -> Tensor:
    """Share of patches whose most probable text, among the candidates given, is their source's.

    Args as in :func:`mixed_loss`, with the group's K texts as candidates; chance is 1 / K.
    """
    probability = mixed_probability(assignment, similarity)
    return (probability.argmax(dim=-1) == targets).float().mean()
