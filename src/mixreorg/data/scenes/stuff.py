"""The background stuff of the scenes: names, how captions place objects on them, and their textures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixreorg.data.scenes import textures
from mixreorg.data.scenes.classes import check_names
from mixreorg.errors import MixreorgError


@dataclass(frozen=True)
class Stuff:
    """One kind of background."""

    name: str
    """English name; unique, and never part of another name as a whole word."""
    places: tuple[str, ...]
    """How a caption says that something is there; each contains the name."""
    draw: Callable[[np.random.Generator], NDArray[np.uint8]]
    """Draws one texture, ``[512, 512, 3]`` RGB."""


# Ordered from the most common and most distinct.
_STUFF = (
    Stuff("grass", ("on the grass", "on grass", "in the grass", "on green grass"), textures.grass),
    Stuff("sand", ("on the sand", "on sand", "in the sand"), textures.sand),
    Stuff("water", ("in the water", "on the water", "on water"), textures.water),
    Stuff("brick wall", ("in front of a brick wall", "against a brick wall", "by a brick wall"), textures.brick),
    Stuff("sky", ("in the sky", "against the sky", "in front of the sky"), textures.sky),
    Stuff("wood", ("on wood", "on the wood", "on a piece of wood"), textures.wood),
    Stuff("snow", ("in the snow", "on the snow", "on snow"), textures.snow),
    Stuff("tiles", ("on tiles", "on the tiles", "in front of tiles"), textures.tiles),
    Stuff("cobblestone", ("on cobblestone", "on the cobblestone"), textures.cobblestone),
    Stuff("soil", ("on the soil", "on soil", "on brown soil"), textures.soil),
    Stuff("tablecloth", ("on a tablecloth", "on the tablecloth"), textures.tablecloth),
    Stuff("hedge", ("in front of a hedge", "against the hedge", "by a hedge"), textures.hedge),
    Stuff("pebbles", ("on pebbles", "on the pebbles"), textures.pebbles),
    Stuff("straw", ("on straw", "in the straw", "on the straw"), textures.straw),
    Stuff("asphalt", ("on the asphalt", "on asphalt"), textures.asphalt),
    Stuff("lava", ("on lava", "in the lava", "above the lava"), textures.lava),
    Stuff("outer space", ("in outer space",), textures.outer_space),
    Stuff("sheet metal", ("on sheet metal", "in front of sheet metal"), textures.sheet_metal),
    Stuff("carpet", ("on the carpet", "on a carpet"), textures.carpet),
    Stuff("marble", ("on marble", "on the marble", "in front of marble"), textures.marble),
)


def stuff_names(count: int | None = None) -> tuple[str, ...]:
    """Names of the first ``count`` kinds of stuff (all without it).

    Raises:
        MixreorgError: ``count`` is not between 1 and the number of kinds.
    """
    if count is not None and not 1 <= count <= len(_STUFF):
        raise MixreorgError(f"there are {len(_STUFF)} kinds of stuff; ask for 1 to {len(_STUFF)}, not {count}")
    return tuple(item.name for item in _STUFF[:count])


def select_stuff(names: Iterable[str]) -> tuple[Stuff, ...]:
    """The kinds of stuff with these names, in this order.

    Raises:
        MixreorgError: an unknown name (the message holds the nearest known one) or a repeated one.
    """
    known = {item.name: item for item in _STUFF}
    chosen = tuple(names)
    check_names(chosen, tuple(known), "kind of stuff")
    return tuple(known[name] for name in chosen)
