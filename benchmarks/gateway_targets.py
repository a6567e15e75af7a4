"""What `gateway.py` measures: it installs, starts and stops targets, each on a core of its own, and watches them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gateway_load as load

HERE = Path(__file__).parent
ROUTED = "claude-tierwise-auto"
KEY = "sk-" + secrets.token_hex(24)  # what clients send; two of the targets want to know it
CCR, LITELLM = "@musistudio/claude-code-router@2.0.0", "litellm[proxy]==1.106.0"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """Where things run: None where the machine does not let us choose."""

    load: set[int] | None
    target: set[int] | None

    @classmethod
    def choose(cls) -> Cores:
        """The first core for the upstream and the load, the second for the target; this process moves there."""
        try:
            free = sorted(os.sched_getaffinity(0))
            if len(free) < 2:
                raise OSError("there is only one")
            os.sched_setaffinity(0, {free[0]})
        except (AttributeError, OSError) as error:
            print(f"not pinned to cores ({error}): figures are of little worth", file=sys.stderr)
            return cls(None, None)
        return cls({free[0]}, {free[1]})

    @contextlib.contextmanager
    def for_target(self) -> Iterator[None]:
        """What is started meanwhile runs on the target's core."""
        if self.load is None or self.target is None:
            yield
            return
        os.sched_setaffinity(0, self.target)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.load)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used so far."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def resident_mb(pid: int) -> float:
    """Memory of a process and its descendants."""
    kb = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS"):
                    kb += int(line.split()[1])
    return kb / 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers. `process` is None where it is the upstream itself."""

    name: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    ledger: Path | None = None

    def cpu(self) -> float:
        """CPU seconds so far."""
        return 0.0 if self.process is None else cpu_seconds(self.process.pid)


class Skipped(Exception):
    """A target cannot be measured here; says why."""


# ---------------------------------------------------------------- targets


@dataclass(frozen=True, slots=True)
class Workshop:
    """Starts targets, each with a folder of its own as its home."""

    scratch: Path
    cores: Cores
    upstream_port: int
    peers: Path

    @property
    def upstream_url(self) -> str:
        """Where the stand-in listens."""
        return f"http://127.0.0.1:{self.upstream_port}"

    def upstream(self) -> subprocess.Popen[bytes]:
        """The stand-in itself, beside the load."""
        return subprocess.Popen([sys.executable, str(HERE / "gateway_upstream.py"), str(self.upstream_port)])

    def run(self, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        """A process on the target's core; what it says goes to a file."""
        home = self.scratch / name
        home.mkdir(exist_ok=True)
        with (self.scratch / f"{name}.log").open("wb") as log, self.cores.for_target():
            return subprocess.Popen(
                command,
                cwd=home,
                env={"PATH": os.environ["PATH"], "HOME": str(home), **env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self, name: str) -> str:
        """The last of what a target said."""
        log = self.scratch / f"{name}.log"
        return log.read_text("utf-8", "replace").strip()[-600:] if log.exists() else ""

    def direct(self) -> Target:
        """The stand-in itself."""
        return Target("direct", self.upstream_port)

    def floor(self) -> Target:
        """Server and client alone."""
        port = free_port()
        command = [sys.executable, str(HERE / "gateway_floor.py"), str(port), self.upstream_url]
        return Target("floor", port, self.run("floor", command, _python_path()))

    def gateway(self) -> Target:
        """The real thing: nothing is switched off, but that there is no local tier on this machine."""
        port, home = free_port(), self.scratch / "gateway"
        home.mkdir(exist_ok=True)
        (home / "tierwise.toml").write_text('[overrides]\nmin_tier = "haiku"\n', "utf-8")
        env = {
            **_python_path(),
            "ANTHROPIC_BASE_URL": self.upstream_url,
            "ANTHROPIC_API_KEY": "stand-in",
            "TIERWISE_CONFIG": str(home / "tierwise.toml"),
            "TIERWISE_LEDGER": str(home / "ledger.db"),
        }
        command = [sys.executable, "-m", "tierwise", "serve", "--port", str(port)]
        return Target("gateway", port, self.run("gateway", command, env), home / "ledger.db")

    def claude_code_router(self) -> Target:
        """claude-code-router with one provider, the stand-in, spoken to in Anthropic's dialect."""
        where = self.peers / "claude-code-router"
        program = where / "node_modules" / ".bin" / "ccr"
        if not program.exists():
            if shutil.which("npm") is None:
                raise Skipped("npm is not installed")
            where.mkdir(parents=True, exist_ok=True)
            _install(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(where), CCR])
        port, home = free_port(), self.scratch / "claude-code-router"
        (home / ".claude-code-router").mkdir(parents=True, exist_ok=True)
        provider = {
            "name": "standin",
            "api_base_url": f"{self.upstream_url}/v1/messages",
            "api_key": "stand-in",
            "models": ["claude-sonnet-5"],
            "transformer": {"use": ["Anthropic"]},
        }
        config = {
            "HOST": "127.0.0.1",
            "PORT": port,
            "APIKEY": KEY,
            "LOG": False,
            "NON_INTERACTIVE_MODE": True,
            "Providers": [provider],
            "Router": {"default": "standin,claude-sonnet-5"},
        }
        (home / ".claude-code-router" / "config.json").write_text(json.dumps(config), "utf-8")
        return Target("claude-code-router", port, self.run("claude-code-router", [str(program), "start"], {}))

    def litellm(self) -> Target:
        """LiteLLM's proxy with one model, the stand-in, through its own `/v1/messages`."""
        where = self.peers / "litellm"
        program = where / "bin" / "litellm"
        if not program.exists():
            _install([sys.executable, "-m", "venv", str(where)])
            _install([str(where / "bin" / "python"), "-m", "pip", "install", "--quiet", LITELLM])
        port, home = free_port(), self.scratch / "litellm"
        home.mkdir(exist_ok=True)
        model = {"model": "anthropic/claude-sonnet-5", "api_base": self.upstream_url, "api_key": "stand-in"}
        config = {
            "model_list": [{"model_name": ROUTED, "litellm_params": model}],
            "general_settings": {"master_key": KEY},
        }
        (home / "config.yaml").write_text(json.dumps(config), "utf-8")  # JSON is YAML too
        command = [str(program), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        env = {"PATH": f"{where / 'bin'}:{os.environ['PATH']}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        return Target("litellm", port, self.run("litellm", command, env))


def _python_path() -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return {} if path is None else {"PYTHONPATH": path}


def _install(command: list[str]) -> None:
    print(f"  {' '.join(command)} …", file=sys.stderr)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Skipped(f"{command[0]}: {error}") from None
    if done.returncode:
        raise Skipped(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout).strip()[-300:]}")


def stop(target: Target) -> None:
    """Ends a target as its operator would."""
    process = target.process
    if process is None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        print(f"{target.name} did not end within 30 s of SIGTERM: killed", file=sys.stderr)
        for pid in reversed(tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


async def ready(target: Target, request: bytes, shop: Workshop, seconds: float = 90.0) -> float:
    """Waits until it answers; gives the seconds that it took.

    Raises:
        Skipped: it does not.
    """
    began = time.perf_counter()
    why = "it does not listen"
    while time.perf_counter() < began + seconds:
        if target.process is not None and target.process.poll() is not None:
            break
        try:
            await load.ask_once(target.port, request)
        except OSError:
            await asyncio.sleep(0.02)
        except load.LoadError as error:
            why = str(error)
            await asyncio.sleep(0.2)
        else:
            return time.perf_counter() - began
    raise Skipped(f"it does not answer: {why}\n{shop.said(target.name)}")
