"""`rtdetr-slurm completion`: what a shell needs to complete commands, runs and spec keys.

The shell hands over the line up to the cursor and gets back what its last word may become, one a
line; where that is nothing, the shell completes names of files.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.main import COMMANDS, PROGRAM, named
from rtdetr_slurm.cli.runs import run_root
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.resources import schemas_dir
from rtdetr_slurm.runs.run import run_ids

WORDS = "words"
_SCRIPTS = {
    "bash": f"""\
_rtdetr_slurm() {{
    local line="${{COMP_LINE:0:COMP_POINT}}"
    mapfile -t COMPREPLY < <({PROGRAM} completion {WORDS} "$line" 2>/dev/null)
    local word="${{line##*[[:space:]]}}"
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${{COMPREPLY[@]#"${{word%"${{word##*=}}"}}"}}")
    fi
    if [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *[=.,] ]]; then
        compopt -o nospace
    fi
}}
complete -o default -F _rtdetr_slurm {PROGRAM}
""",
    "zsh": f"""\
#compdef {PROGRAM}
_rtdetr_slurm() {{
    local line="${{(j: :)words[1,CURRENT-1]}} $PREFIX"
    local -a found whole open
    found=("${{(@f)$({PROGRAM} completion {WORDS} "$line" 2>/dev/null)}}")
    found=("${{(@)found:#}}")
    (( ${{#found}} )) || {{ _files; return }}
    open=("${{(@M)found:#*[=.,]}}")
    whole=("${{(@)found:#*[=.,]}}")
    (( ${{#open}} )) && compadd -S '' -- "${{open[@]}}"
    (( ${{#whole}} )) && compadd -- "${{whole[@]}}"
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
compdef _rtdetr_slurm {PROGRAM}
""",
    "fish": f"""\
complete -c {PROGRAM} -a '({PROGRAM} completion {WORDS} (commandline -cp | string collect))'
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell",
        choices=(*_SCRIPTS, WORDS),
        help=f"print the script of a shell; {WORDS}: what the script asks",
    )
    parser.add_argument("line", nargs="?", default="", help=f"of {WORDS}: the line so far")


def run(args: argparse.Namespace) -> int:
    if args.shell != WORDS:
        terminal.out_lines(_SCRIPTS[args.shell])
        return ExitCode.OK
    try:
        found = candidates(args.line)
    except (UserError, OSError):
        found = []  # a shell in the middle of a line is no place for messages
    for word in found:
        terminal.out(word)
    return ExitCode.OK


def candidates(line: str) -> list[str]:
    """What the last word of a line may become; nothing where names of files belong."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote is open
        words = line.replace("'", "").replace('"', "").split()
    if not line or line[-1].isspace():
        words.append("")
    _, *before, word = words if len(words) > 1 else ["", *words]
    name, rest = named(before) if before else ("", [])
    if name in COMMANDS:
        return _of_a_command(name, rest, word)
    beginning = [*before, ""]  # of a command of several words
    names = [one.split() for one in COMMANDS if one.startswith(" ".join(beginning))]
    return _beginning_with(word, dict.fromkeys(words[len(before)] for words in names))


def _of_a_command(command: str, before: Sequence[str], word: str) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    options = parser._option_string_actions
    positionals = [action for action in parser._actions if not action.option_strings]
    given, site, number = None, None, 0
    for one in before:
        if given is not None:
            site = one if given.dest == "site" else site
            given = None
        elif one in options:
            given = options[one] if options[one].nargs != 0 else None
        elif not one.startswith("-"):
            number += 1
    if given is not None:
        return _values(given, word, site)
    if word.startswith("-"):
        long = [name for name in options if name.startswith("--")]
        return _beginning_with(word, [*long, "--help"])
    if not positionals:
        return []
    return _values(positionals[min(number, len(positionals) - 1)], word, site)


def _values(action: argparse.Action, word: str, site: str | None) -> list[str]:
    """What an argument of a command may be."""
    if action.dest in ("run", "parent"):
        return [] if "/" in word else _beginning_with(word, run_ids(run_root(site)))
    if action.dest == "overrides":
        return spec_words(word)
    if action.dest == "action":
        return _beginning_with(word, ACTIONS)
    if action.dest == "then":
        done, comma, last = word.rpartition(",")
        return _beginning_with(last, ACTIONS, done + comma)
    if action.dest == "site":
        return _beginning_with(word, ["local"]) if word else []
    choices = [str(one) for one in action.choices or () if one != WORDS]
    return _beginning_with(word, choices)


def _beginning_with(word: str, names: Iterable[str], before: str = "") -> list[str]:
    return [before + name for name in names if name.startswith(word)]


def spec_words(word: str) -> list[str]:
    """What a `key=value` may become: the next part of its key, or its value where the schema has
    but a few."""
    schema = json.loads((schemas_dir() / "train.schema.json").read_text())
    key, equals, value = word.partition("=")
    *sections, last = key.split(".")
    node: Mapping[str, Any] = schema
    for section in sections:
        node = _resolved(schema, node.get("properties", {}).get(section, {}))
    fields = node.get("properties", {})
    if equals:
        values = _few_values(_resolved(schema, fields.get(last, {})))
        return _beginning_with(value, values, f"{key}=")
    stem = "".join(f"{section}." for section in sections)
    names = [name for name in fields if name.startswith(last)]
    return [f"{stem}{name}{_after(_resolved(schema, fields[name]))}" for name in names]


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node, or what it refers to."""
    for one in (node, *node.get("anyOf", ())):
        if "$ref" in one:
            found: Mapping[str, Any] = schema["$defs"][one["$ref"].rpartition("/")[2]]
            return found
    return node


def _after(node: Mapping[str, Any]) -> str:
    return "." if "properties" in node else "="


def _few_values(node: Mapping[str, Any]) -> list[str]:
    values = node.get("enum") or ([True, False] if "boolean" in str(node.get("type")) else [])
    return [one if isinstance(one, str) else json.dumps(one) for one in values if one != ""]
