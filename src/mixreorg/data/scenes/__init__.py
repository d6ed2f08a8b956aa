"""A captioned world with exact masks that runs anywhere: emoji of named classes on named procedural textures.

The pictures are OpenMoji's (https://openmoji.org), designed by the OpenMoji project and published under
CC BY-SA 4.0, or those of another folder; generated folders carry the credit in their LICENSE.txt. The textures are
drawn by this package.
"""

from mixreorg.data.scenes.generate import generate_scenes
from mixreorg.data.scenes.presets import ScenesConfig, easy, hard, medium, preset, transfer

__all__ = ["ScenesConfig", "easy", "generate_scenes", "hard", "medium", "preset", "transfer"]
