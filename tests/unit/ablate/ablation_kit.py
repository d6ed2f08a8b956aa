"""A small ablation as plain values, and results made up for it."""

import copy

from mixreorg.ablate.spec import AblationSpec

SPEC = {
    "title": "Two <b>methods</b>",
    "worlds": {"tiny": {"preset": "easy", "train": 40, "val": 8, "test": 8}},
    "seeds": [0, 1],
    "set": {"steps": 12, "optim.lr": 1e-3},
    "rows": {
        "groupvit": {
            "recipe": "scenes_groupvit",
            "world": "tiny",
            "label": "GroupViT <i>",
            "section": "Methods & more",
        },
        "mixreorg": {"recipe": "scenes_mixreorg", "world": "tiny", "section": "Methods & more"},
    },
    "measure": {"splits": [{"name": "test"}]},
    "baseline": "groupvit",
}


def spec_values(**changes):
    """The ablation with some of its values replaced."""
    return {**copy.deepcopy(SPEC), **changes}


def make_spec(**changes):
    return AblationSpec.from_dict(spec_values(**changes), source="spec.yaml")


MACHINE = {"cpu": "Test CPU", "cores": 4, "cpu_capability": "AVX2", "threads": 2, "device": "cpu"}


def run_values(row, seed, miou, *, state="finished"):
    """A run of the result file with one foreground mIoU."""
    metrics = {"foreground_miou": miou, "background_miou": miou / 2, "background_threshold": 0.3, "num_images": 8.0}
    last = {**metrics, "foreground_miou": miou - 1}
    mixed = {"common": 40.0} if row == "groupvit" else {"common": 60.0, "own": 70.0}
    checkpoints = {
        "best": {"step": 10, "mixed_mask_accuracy": mixed, "splits": {"test": metrics}},
        "last": {"step": 12, "mixed_mask_accuracy": mixed, "splits": {"test": last}},
    }
    return {
        "row": row,
        "seed": seed,
        "state": state,
        "command": f"mixreorg train --recipe scenes_{row} --set seed={seed} --out 'runs/{row}<&>'",
        "steps": 12,
        "total_steps": 12,
        "batch_size": 64,
        "precision": "fp32",
        "num_pairs": 40,
        "code": {"commit": "abc123", "dirty": True, "versions": {"torch": "2.6"}},
        "machines": [MACHINE],
        "cost": {
            "train_seconds": 8.0,
            "train_cpu_seconds": 16.0,
            "process_seconds": 20.0,
            "process_cpu_seconds": 30.0,
            "parts": 1,
        },
        "checkpoints": checkpoints if state == "finished" else {},
        "curve": {
            "train": [{"step": 5, "loss": 4.0}, {"step": 10, "loss": 3.0}],
            "val": [{"step": 10, "foreground_miou": miou}],
        },
    }


def result_values(runs):
    """A result file of these runs."""
    rows = [
        {
            "name": name,
            "label": label,
            "section": "Methods & more",
            "recipe": f"scenes_{name}",
            "method": name,
            "world": "tiny",
            "preset": "easy",
            "settings": {},
            "baseline": "groupvit",
            "num_seeds": 2,
        }
        for name, label in (("groupvit", "GroupViT <i>"), ("mixreorg", "MixReorg | $x$"))
    ]
    return {
        "format": "mixreorg-ablation-1",
        "title": "Two <b>methods</b>",
        "budget_note": "Equal <u>steps</u>.",
        "selection_rule": "By val.",
        "splits": [{"name": "test", "world": None}],
        "worlds": [{"name": "tiny", "preset": "easy", "commands": ["mixreorg data scenes worlds/tiny/scenes"]}],
        "rows": rows,
        "runs": runs,
        "spec": copy.deepcopy(SPEC),
    }


def two_by_two():
    """Both rows with both seeds: differences 4 and 6."""
    return result_values(
        [
            run_values("groupvit", 0, 20.0),
            run_values("groupvit", 1, 23.0),
            run_values("mixreorg", 0, 24.0),
            run_values("mixreorg", 1, 29.0),
        ]
    )
