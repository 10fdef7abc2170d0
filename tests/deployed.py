"""The files of ``deploy/``, read as those read them who use them."""

from pathlib import Path
from typing import Any

import click
import yaml
from dockerfile_parse import DockerfileParser

from crosseai.client.cli import main as client_main
from crosseai.serve.cli import main as serve_main

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
DOCKERFILES = {
    "crosseai-server": ("server.Dockerfile", ""),
    "crosseai-client": ("client.Dockerfile", "client"),
    "crosseai-agent": ("client.Dockerfile", "agent"),
}
"""File and stage of each image."""

Json = dict[str, Any]


def read_yaml(file: Path) -> list[Json]:
    """All documents of a YAML file."""
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def resources(folder: str) -> dict[tuple[str, str], Json]:
    """The resources that a kustomization lists, by kind and name."""
    base = DEPLOY / "kubernetes" / folder
    (kustomization,) = read_yaml(base / "kustomization.yaml")
    documents = [document for name in kustomization["resources"] for document in read_yaml(base / name)]
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents)
    return found


def instructions(image: str) -> list[Json]:
    """What an image's stage is made of: the instructions of the stages below it, then its own."""
    file, stage = DOCKERFILES[image]
    stages: dict[str, list[Json]] = {}
    name = ""
    parser = DockerfileParser(path=str(DEPLOY / "containers" / file), cache_content=True)
    for instruction in parser.structure:
        if instruction["instruction"] == "FROM":
            base, _, name = instruction["value"].partition(" AS ")
            stages[name] = list(stages.get(base, []))
        if stages:
            stages[name].append(instruction)
    return stages[stage]


def values(image: str, name: str) -> list[str]:
    """Values of all instructions of a kind, in order."""
    return [found["value"] for found in instructions(image) if found["instruction"] == name]


def words(image: str, name: str) -> list[str]:
    """The command line that an instruction's last occurrence spells."""
    return list(yaml.safe_load(values(image, name)[-1]))


def containers(template: Json) -> dict[str, Json]:
    """Containers of a pod's template, by name."""
    return {container["name"]: container for container in template["spec"]["containers"]}


def parse(words: list[str]) -> click.Context:
    """Parse a command line of ours as the command would, and run nothing."""
    program, name, *arguments = words
    commands = {"crosseai-client": client_main, "crosseai-serve": serve_main}
    group = commands[program]
    # With the group's context, as in earnest: click keeps the options for help of the first context it sees.
    return group.commands[name].make_context(name, arguments, parent=click.Context(group, **group.context_settings))
