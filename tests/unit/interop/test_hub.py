"""Names on the hub, against a hub on this machine; its client reads its settings when it is imported."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hub_kit import Hub, running_hub

from mixreorg import convert_model, push_to_hub
from mixreorg.errors import MixreorgError
from mixreorg.interop.hub import ALIASES, locate
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.text.tokenizer import Tokenizer

# Runs each piece of code of its first argument; prints their values, or the messages of their errors, as JSON.
SCRIPT = """
import json, sys
from huggingface_hub import hf_hub_download
from mixreorg import MixreorgError, PretrainedSegmenter, convert_model, load_model, push_to_hub
from mixreorg.segment.protocol import groupvit_protocol
answers = []
for code in json.loads(sys.argv[1]):
    try:
        answers.append(str(eval(code)))
    except MixreorgError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""
TOTAL = "sum(p.double().sum().item() for p in load_model({!r}).parameters())"


def put(hub: Hub, repo: str, folder: Path) -> None:
    hub.files[repo] = {path.name: path.read_bytes() for path in folder.iterdir()}


def run(hub: Hub, home: Path, codes: dict[str, str], **environment: str) -> dict[str, str]:
    """Answers of a fresh interpreter, by the names of the questions."""
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(codes.values()))]
    result = subprocess.run(command, env=settings, cwd=home, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return dict(zip(codes, json.loads(result.stdout.splitlines()[-1]), strict=True))


@dataclass(frozen=True)
class Session:
    """A model put on the hub, and what two interpreters saw of it one after the other."""

    hub: Hub
    model: DualEncoder
    home: Path
    hf: Path
    online: dict[str, str]
    offline: dict[str, str]
    asked_online: tuple[str, ...]
    asked_later: tuple[str, ...]


@pytest.fixture(scope="module")
def session(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Session:
    home = tmp_path_factory.mktemp("hub")
    image = ImageEncoderConfig(
        image_size=16,
        patch_size=8,
        width=16,
        num_heads=1,
        depths=(1, 1, 1),
        num_group_tokens=(4, 2),
        num_segments=(4, 2),
    )
    text = TextEncoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=24, end_id=tokenizer.end_id, width=16, depth=1, num_heads=1
    )
    torch.manual_seed(0)
    model = DualEncoder(DualEncoderConfig(image=image, text=text, embed_dim=16, projector_hidden=16), tokenizer)
    save_model(model, home / "native", {"name": "x"})
    hf = convert_model(home / "native", home / "hf", "hf")
    known = {"groupvit": "nvidia/groupvit-gcc-yfcc", "missing": "groupvit-gcc-redcaps"}
    segmenter = f"PretrainedSegmenter.from_pretrained({str(hf)!r}, protocol=groupvit_protocol(64))"
    with running_hub() as hub:
        put(hub, ALIASES["groupvit-gcc-yfcc"], hf)
        hub.files[known["groupvit"]]["tf_model.h5"] = b"not asked for"
        put(hub, "me/native", home / "native")
        hub.files["me/native"]["calibration.json"] = b'{"any": "values"}'
        hub.files["me/native"]["README.md"] = b"---\nlicense: cc0-1.0\n---\n"
        put(hub, "me/broken", hf)
        hub.broken.add(("me/broken", "calibration.json"))
        put(hub, "me/cardless", home / "native")
        hub.broken.add(("me/cardless", "README.md"))
        put(hub, "me/partly", home / "native")
        hub.files["me/clip"] = {"config.json": b'{"model_type": "clip"}'}
        hub.files["me/half"] = {"config.json": b'{"model_type": "groupvit"}'}
        needed = ("config.json", "model.safetensors", "tokenizer.json")
        push = f"push_to_hub({str(hf)!r}, 'me/tiny', private=True)"
        online = run(
            hub,
            home,
            {
                "alias": TOTAL.format("groupvit-gcc-yfcc"),
                "nobody": "load_model('nobody/nothing')",
                "revision": "load_model('me/native@v9')",
                "commit": f"load_model('me/native@{hub.commit('me/native')}').config.embed_dim",
                "calibration": "load_model('me/native').inference_calibration",
                "licence": f"convert_model('me/native', {str(home / 'copy')!r}, 'native')",
                "broken": "load_model('me/broken')",
                "cardless": "load_model('me/cardless').config.embed_dim",
                "partly": f"[hf_hub_download('me/partly', name) for name in {needed}]",
                "clip": "load_model('me/clip')",
                "half": "load_model('me/half')",
                "push": push,
                "back": "load_model('me/tiny').inference_protocol",
                "push method": f"{segmenter}.push_to_hub('me/method')",
                "from method": "PretrainedSegmenter.from_pretrained('me/method').protocol.short_side",
                "closed": f"__import__('os').environ.pop('HF_TOKEN') and {push}",
            },
            HF_TOKEN="hf_mine",
        )
        asked = tuple(hub.requests)
        later = {
            "known": TOTAL.format(known["groupvit"]),
            "missing": f"load_model({known['missing']!r})",
            "partly": TOTAL.format("me/partly"),
        }
        offline = run(hub, home, later, HF_HUB_OFFLINE="1")
        return Session(hub, model, home, hf, online, offline, asked, tuple(hub.requests[len(asked) :]))


def test_a_model_is_fetched_once_and_then_read_without_a_network(session: Session) -> None:
    expected = sum(parameter.double().sum().item() for parameter in session.model.parameters())
    assert float(session.online["alias"]) == pytest.approx(expected, rel=1e-6)
    assert session.offline["known"] == session.online["alias"]
    assert session.asked_later == ()
    assert not any("tf_model" in path for path in session.asked_online)


def test_without_a_network_and_without_a_copy(session: Session) -> None:
    assert session.offline["missing"] == (
        "cannot fetch nvidia/groupvit-gcc-redcaps from the Hugging Face hub, and there is no file or folder "
        "groupvit-gcc-redcaps: the hub cannot be reached (or HF_HUB_OFFLINE is set) and the model is not in the "
        "cache; fetch it once with a network, or copy its folder here and give the folder"
    )


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-m", "mixreorg", "convert", "me/model", "copy", "--to", "hf"]
        result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert result.returncode == 2
    # The library would warn of each of its attempts.
    assert len(result.stderr.splitlines()) == 1
    assert "me/model: the hub cannot be reached" in result.stderr


def test_names_and_revisions(session: Session) -> None:
    closed = "there is no file or folder nobody/nothing: there is no such model, or it is closed to you"
    assert closed in session.online["nobody"]
    assert "it has no such revision" in session.online["revision"]
    assert session.online["commit"] == "16"


def test_a_calibration_comes_with_the_model(session: Session) -> None:
    assert session.online["calibration"] == "{'any': 'values'}"


def test_the_licence_comes_with_the_model(session: Session) -> None:
    assert (session.home / "copy" / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: cc0-1.0\n")


def test_a_hub_that_fails_at_a_file_is_not_taken_to_lack_it(session: Session) -> None:
    assert "neither gave its calibration.json nor said that it has none" in session.online["broken"]
    assert "501" in session.online["broken"]
    assert "HF_HUB_OFFLINE=1" in session.online["broken"]


def test_a_card_that_cannot_be_had_stops_nobody(session: Session) -> None:
    assert session.online["cardless"] == str(session.model.config.embed_dim)


def test_what_another_program_left_in_the_cache_is_enough_without_a_network(session: Session) -> None:
    expected = sum(parameter.double().sum().item() for parameter in session.model.parameters())
    assert float(session.offline["partly"]) == pytest.approx(expected, rel=1e-6)


def test_repositories_of_other_things(session: Session) -> None:
    assert session.online["clip"] == "the model me/clip on the hub is not a GroupViT but clip"
    assert "it lacks a file that every GroupViT has" in session.online["half"]


def test_a_model_goes_to_the_hub_and_comes_back(session: Session) -> None:
    assert session.online["push"].startswith(f"{session.hub.address}/me/tiny/commit/")
    assert session.hub.files["me/tiny"].keys() == {path.name for path in session.hf.iterdir()}
    assert session.online["back"] == "{'name': 'x'}"
    assert session.online["closed"].startswith(f"cannot put {session.hf} on the hub as me/tiny")


def test_a_segmenter_goes_to_the_hub_and_comes_back(session: Session) -> None:
    assert session.online["push method"].startswith(f"{session.hub.address}/me/method/commit/")
    files = session.hub.files["me/method"]
    assert files.keys() == {path.name for path in session.hf.iterdir()}
    assert b'load_model("me/method")' in files["README.md"]
    assert session.online["from method"] == str(groupvit_protocol(64).short_side)


def test_paths_are_not_asked_for_on_the_hub(
    tiny_model: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mixreorg.interop.hub._fetch", lambda *_: pytest.fail("asked the hub"))
    save_model(tiny_model, tmp_path / "owner" / "name")
    assert load_model("owner/name").config == tiny_model.config
    for name in ("owner/other", "nothing", "/a/b", "a/b/c", "./a", "../a/b", "~/none/here", "owner/name.pth"):
        assert not locate(name).exists() or name == "owner/name"
        with pytest.raises(MixreorgError, match="no model at"):
            load_model(name)
    assert locate(Path("me/model")) == Path("me/model")


def test_only_model_folders_go_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixreorg.interop.hub._library", lambda _: pytest.fail("asked the hub"))
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MixreorgError, match="is not a model folder to put on the hub: it has no config"):
            push_to_hub(folder, "me/model")


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MixreorgError, match=r"there is no file or folder me/model; .*pip install 'mixreorg\[hub\]'"):
        load_model("me/model")
