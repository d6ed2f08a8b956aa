"""Tables of a report as rows of text, for Markdown and the page alike."""

from typing import Any

Rows = list[tuple[str, ...]]

MEASURES = {
    "miou": ("mIoU", "mean over classes of intersection over union, from one confusion matrix over the split"),
    "pixel_accuracy": ("pixel accuracy", "share of right pixels"),
    "boundary_iou": ("boundary IoU", "IoU within 2 % of the diagonal of borders (Cheng et al., 2021)"),
    "grouping_oracle_miou": (
        "grouping oracle",
        "mIoU if every segment took its best label; what is missing is the grouping's",
    ),
    "naming_oracle_miou": (
        "naming oracle",
        "mIoU if every true region took its commonest predicted label; what is missing is the naming's",
    ),
    "foreground_miou": ("without background", "mIoU of the classes on pixels that are no background"),
    "present_miou": ("true names given", "mIoU with only each photo's true classes to choose from"),
    "recognition": ("recognition", "true classes among the names that fit a photo best"),
    "small_region_iou": ("small regions", "mean IoU of true regions below 2 % of the photo's pixels that count"),
    "medium_region_iou": ("medium regions", "of 2 to 15 %"),
    "large_region_iou": ("large regions", "of 15 % and more"),
    "zero_iou_share": ("classes never found", "share of true classes with an IoU of 0"),
}
"""Label and meaning by name, in the order of reports."""


_OTHER_MASKS = {"instances": "masks drawn from the instances JSON: close to published numbers, but not the same"}
"""What to say of masks that differ from the published ones, by their form."""

_NO_BACKGROUND = "; without background, borders to pixels that do not count are borders of the truth alone: below 100"
"""What to say of boundary IoU where every pixel takes a class, also those that have none in the truth."""

_OTHER_THRESHOLDS = ("fixed", "calibrated")
"""Rules for a background threshold that is not the protocol's."""


def number(value: float | None, digits: int = 1) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def headline(facts: dict[str, Any]) -> str:
    """The result in one sentence."""
    low, high = facts["miou_interval"]
    return (
        f"mIoU {number(facts['miou'])} (95 % interval over photos {number(low)} to {number(high)}) on "
        f"{facts['split']}, {facts['num_images']:,} photos"
    )


def caveats(facts: dict[str, Any]) -> list[str]:
    """What keeps the result from being held against published ones; one sentence each."""
    official, lines = facts["official_num_images"], []
    if official and facts["num_images"] not in official:
        numbers = " or ".join(f"{count:,}" for count in official)
        lines.append(f"{facts['num_images']:,} photos instead of {numbers}: not comparable with published numbers")
    if facts["masks"] in _OTHER_MASKS:
        lines.append(_OTHER_MASKS[facts["masks"]])
    split = facts["split"].rpartition("/")[2]
    if official and split != "val":
        lines.append(f"the split {split}: published numbers are of val")
    if official and facts["protocol"]["threshold_rule"] in _OTHER_THRESHOLDS:
        lines.append(f"{facts['protocol']['background']}: published numbers have their protocol's")
    return lines


def protocol_line(facts: dict[str, Any]) -> str:
    """The protocol in one sentence."""
    protocol = facts["protocol"]
    used = protocol["segmentation"]
    windows = "one window" if used["whole"] else f"windows of {used['window']}, stride {used['stride']}"
    templates = len(used["templates"])
    return (
        f"protocol {protocol['name']} version {protocol['version']}, hash {protocol['hash']}: short side "
        f"{used['short_side']}, {windows}, {templates} template{'s' if templates > 1 else ''}, {protocol['background']}"
    )


def cost_line(facts: dict[str, Any]) -> str:
    """Speed and memory in one sentence."""
    peak = facts["peak_memory_bytes"]
    memory = f", at most {peak / 2**30:.2f} GB of memory in a process" if peak else ""
    return f"{number(facts['images_per_second'], 2)} photos per second{memory}"


def measure_rows(facts: dict[str, Any]) -> Rows:
    """Measure, percent, meaning."""
    metrics = facts["metrics"]
    notes = {"boundary_iou": _NO_BACKGROUND} if facts["protocol"]["threshold_rule"] == "none" else {}
    return [
        (label, number(metrics[name]), meaning + notes.get(name, ""))
        for name, (label, meaning) in MEASURES.items()
        if name in metrics
    ]


def class_rows(facts: dict[str, Any]) -> Rows:
    """Class and IoU, best first; classes that do not occur last."""
    items = sorted(facts["per_class_iou"].items(), key=lambda item: (item[1] != item[1], -item[1]))
    return [(name, number(value)) for name, value in items]


def pair_rows(facts: dict[str, Any], count: int = 10) -> Rows:
    """Truth, taken for, share of the true class."""
    return [
        (item["truth"], item["prediction"], f"{item['share_of_truth']:.1f}")
        for item in facts["confusion_pairs"][:count]
    ]


def published_rows(facts: dict[str, Any]) -> Rows:
    """System, training data, mIoU, protocol, source; this result among them, in the order of mIoU."""
    protocol = facts["protocol"]
    name = protocol["name"] + (", another threshold" if protocol["threshold_rule"] in _OTHER_THRESHOLDS else "")
    mine = ("this result", str(facts["model"]["name"]), facts["miou"], name, "")
    others = [
        (item["system"], item["training"], item["miou"], item["protocol"], item["source"])
        for item in facts["published"]
    ]
    ordered = sorted([mine, *others], key=lambda row: row[2])
    return [(system, data, number(miou), protocol, source) for system, data, miou, protocol, source in ordered]
