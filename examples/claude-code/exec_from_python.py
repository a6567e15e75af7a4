"""Claude Code from Python, on the cheapest model whose answer passes."""

import json
import subprocess


def ask(prompt: str, *, check: str | None = None, tools: str = "Read") -> str:
    """The answer that passed; raises where none did."""
    command = ["tierwise", "exec", "--json", *(["--check", check] if check else [])]
    done = subprocess.run(
        [*command, "--", "claude", "-p", prompt, "--allowedTools", tools], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1, 4):  # not run at all: stderr says why
        raise RuntimeError(done.stderr.strip())
    told = json.loads(done.stdout)
    if not told["ok"]:
        raise RuntimeError(f"no model passed: {told['why']} ({told['cost_usd']} US$ spent)")
    print(f"{told['model']}, {len(told['attempts'])} attempt(s), {told['cost_usd']} US$")
    return told["text"]


print(ask("Summarise README.md in one line", check="grep -q README"))
