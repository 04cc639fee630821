"""Docker and compose files: linted, held to the compose specification, and whole. No engine builds them here."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from operations import tools

DEPLOY = tools.ROOT / "deploy"
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
COMPOSE = sorted(DEPLOY.glob("docker-compose.*.yml"))
ROLES = ("prover", "verifier", "oracle")


def instructions(path: Path) -> list[list[str]]:
    """The words of each instruction of a Dockerfile."""
    text = re.sub(r"^#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip()]


def copied(path: Path) -> list[str]:
    """What a Dockerfile takes from the repository."""
    copies = [words[1:-1] for words in instructions(path) if words[0] == "COPY"]
    return [word for words in copies if not words[0].startswith("--from") for word in words]


def services(path: Path) -> dict[str, Any]:
    """The services of a compose file, as a YAML reader sees them."""
    import_yaml = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))['services']))"
    result = tools.run(tools.tool("python"), "-c", import_yaml, path)
    assert result.returncode == 0, tools.said(result)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def variables(path: Path) -> set[str]:
    """What an environment file sets."""
    return set(re.findall(r"(?m)^(\w+)=", path.read_text("utf-8")))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    result = tools.run(tools.tool("hadolint"), path)
    assert (result.returncode, result.stdout) == (0, ""), tools.said(result)


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "bad.Dockerfile"
    bad.write_text("FROM python\nRUN cd /opt\n", "utf-8")
    assert "DL3006" in tools.said(tools.run(tools.tool("hadolint"), bad))


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_holds_to_the_specification(path: Path) -> None:
    for command in (
        (tools.tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path),
        (
            tools.tool("yamllint"),
            "--strict",
            "--config-file",
            tools.ROOT / "operations" / "yamllint.yml",
            path,
        ),
    ):
        result = tools.run(*command)
        assert result.returncode == 0, tools.said(result)


def test_the_specification_would_refuse_an_unknown_setting(tmp_path: Path) -> None:
    bad = tmp_path / "docker-compose.yml"
    bad.write_text("services:\n  one:\n    image: a:1\n    restarts: always\n", "utf-8")
    command = (tools.tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", bad)
    assert tools.run(*command).returncode != 0


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_only_the_axon_listens_beyond_loopback(path: Path) -> None:
    reachable = {
        port
        for service in services(path).values()
        for port in service.get("ports", [])
        if not port.startswith("127.0.0.1:")
    }
    assert {re.sub(r"\d", "", port) for port in reachable} == {"${AXON_PORT:-}:"}


@pytest.mark.parametrize("role", ROLES)
def test_the_example_environment_names_all_that_a_compose_file_asks_for(role: str) -> None:
    text = (DEPLOY / f"docker-compose.{role}.example.yml").read_text("utf-8")
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    assert asked == variables(DEPLOY / f"{role}.env.example")
    assert "_PASSWORD=replace-me" in (DEPLOY / "verifier.env.example").read_text("utf-8")


@pytest.mark.parametrize("role", ROLES)
def test_every_image_is_named_with_a_tag_and_every_service_starts_again(role: str) -> None:
    for name, service in services(DEPLOY / f"docker-compose.{role}.example.yml").items():
        assert "build" in service or re.search(r":[\w${]", service["image"]), name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"]["max-size"], name


@pytest.mark.parametrize("role", ROLES)
def test_an_image_runs_as_nobody_s_root_and_looks_after_itself(role: str) -> None:
    words = instructions(DEPLOY / "docker" / f"{role}.Dockerfile")
    final = words[max(place for place, line in enumerate(words) if line[0] == "FROM") :]
    by_name = {line[0]: " ".join(line[1:]) for line in final}
    assert by_name["USER"] == "10001:10001"
    assert by_name["ENTRYPOINT"] == '["/opt/targon/deploy/docker/entrypoint.sh"]'
    assert "healthcheck.py" in by_name["HEALTHCHECK"]
    assert not re.search(r"(?i)password|api_key|secret", " ".join(map(" ".join, words)))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_is_made_from_is_there_and_not_left_out(path: Path) -> None:
    let_in = {
        line[1:] for line in (tools.ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"
    }
    for source in copied(path):
        assert (tools.ROOT / source).exists(), source
        assert source in let_in, f"{source} is left out by .dockerignore"


def test_the_project_can_be_built_from_what_an_image_gets(tmp_path: Path) -> None:
    for source in copied(DEPLOY / "docker" / "prover.Dockerfile"):
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if (tools.ROOT / source).is_dir():
            shutil.copytree(tools.ROOT / source, tmp_path / source)
        else:
            shutil.copyfile(tools.ROOT / source, tmp_path / source)
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", ".")
    result = tools.run(*command, cwd=tmp_path)
    assert result.returncode == 0, tools.said(result)
    assert list(tmp_path.glob("targon-*.whl"))
    listing = tools.run(sys.executable, "scripts/setup.py", "nothing", cwd=tmp_path)
    assert "expected one of: run, develop" in listing.stderr
