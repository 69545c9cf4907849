"""A deployment of its own for a test: a clean copy of the project, a unique project name, a free port."""

import json
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.deploy.upstream import KEY
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


class Deployment:
    """`docker compose` in a copy of the tracked files. Leaving it takes all down: containers, volumes, images."""

    def __init__(self, folder: Path, *more_files: str) -> None:
        """`more_files`: compose files beside `docker-compose.yml`, from the project's folder."""
        self.folder = folder
        self._settings: dict[str, Any] = {}
        self.project = f"parley-test-{secrets.token_hex(4)}"
        port = free_port()
        self._address = f"127.0.0.1:{port}"
        self.url = f"http://{self._address}"
        self._environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")} | {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": ":".join(("docker-compose.yml", *more_files)),
            "PUBLISH": self._address,
        }
        tracked = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in tracked.stdout.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        (folder / "openai_api_key").write_text(KEY)
        folder.chmod(0o755)  # containers have users of their own

    def __enter__(self) -> Self:
        """Begin with nothing running."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take all down."""
        self.compose("down", "--volumes", "--rmi", "local", "--remove-orphans", "--timeout", "3")

    def settings(self, **settings: Any) -> None:
        """Write `.env`, with the settings of before."""
        self._settings |= settings
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))

    def shell(self, script: str) -> str:
        """Run lines as an operator types them; return what they print. Raises AssertionError with it where they fail."""
        command = ["bash", "-eu", "-o", "pipefail", "-c", script.replace("127.0.0.1:8080", self._address)]
        done = subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def compose(self, *arguments: str) -> str:
        """Run `docker compose`."""
        return self.docker("compose", *arguments)

    def docker(self, *arguments: str, errors: bool = False, codes: tuple[int, ...] = (0,)) -> str:
        """Run `docker`; return what it prints, with `errors` also on stderr."""
        done = subprocess.run(
            ["docker", *arguments], cwd=self.folder, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode in codes, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if errors else "")

    def up(self, *arguments: str) -> None:
        """Bring it up and wait until all is healthy."""
        self.compose("up", "--detach", "--wait", *arguments)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        (about,) = json.loads(self.docker("inspect", container))
        assert isinstance(about, dict)
        return about

    def address(self, container: str) -> str:
        """Return a container's address in the network that it shares with the proxy."""
        address: str = self.inspect(container)["NetworkSettings"]["Networks"][f"{self.project}_front"]["IPAddress"]
        return address

    def python(self, container: str, code: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run Python in a container of the service, as its user."""
        return self.docker("exec", container, "python", "-c", code, codes=codes)

    def log(self, service: str) -> str:
        """Return what a service's containers have said."""
        return "".join(self.docker("logs", container, errors=True) for container in self.containers(service))

    def left(self) -> list[str]:
        """Return what of it the engine still has."""
        label = f"label=com.docker.compose.project={self.project}"
        found = []
        for kind in (("ps", "--all"), ("volume", "ls"), ("network", "ls"), ("image", "ls")):
            found += self.docker(*kind, "--quiet", "--filter", label).split()
        return found + self.docker("image", "ls", "--quiet", f"{self.project}-*").split()


def commands(section: str) -> list[str]:
    """Return the shell blocks of one section of the README, in order."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
