import ast
from pathlib import Path

import pytest
from pydantic import BaseModel

from mixreorg.errors import MixreorgError
from mixreorg.recipes import RECIPES, recipe
from mixreorg.train.config import TrainConfig


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete_and_named(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_mixreorg_recipes_change_nothing_but_the_objective() -> None:
    for mixed, plain in (("mixreorg_vits", "groupvit_vits"), ("scenes_mixreorg", "scenes_groupvit")):
        first, second = recipe(mixed).to_dict(), recipe(plain).to_dict()
        assert {key for key in first if first[key] != second[key]} == {"recipe", "objective"}


def test_the_full_scale_recipe_has_the_published_values() -> None:
    config = recipe("groupvit_vits")
    assert (config.model.image.width, config.model.image.depths, config.model.image.num_segments) == (
        384,
        (6, 3, 3),
        (64, 8),
    )
    assert (config.batch_size, config.optim.lr, config.optim.weight_decay, config.optim.clip_norm) == (
        4096,
        1.6e-3,
        0.05,
        5.0,
    )


def test_an_unknown_recipe() -> None:
    with pytest.raises(MixreorgError, match="did you mean 'scenes_mixreorg'"):
        recipe("scene_mixreorg")


def sections(model: type[BaseModel]) -> set[tuple[str, str]]:
    """(class, field) of a configuration and of all configurations inside it."""
    found = set()
    for name, field in model.model_fields.items():
        found.add((model.__name__, name))
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                found |= sections(candidate)
    return found


def test_every_configuration_field_is_read_somewhere() -> None:
    source = Path(__file__).parents[2] / "src" / "mixreorg"
    read = {
        node.attr
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    unread = {f"{owner}.{field}" for owner, field in sections(TrainConfig) if field not in read}
    assert unread <= {"GroupViTConfig.kind", "MixReorgConfig.kind"}
