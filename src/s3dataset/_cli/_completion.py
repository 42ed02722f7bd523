"""`s3dataset completion`: a script for the shell, made from the parser itself."""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from s3dataset._cli._output import HelpLayout

_PLACES: Final = "places"
"""What an argument is completed with that has no choices: names of files."""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in the shell",
        description="Prints a script that makes the shell complete commands, options and their choices.",
        epilog="examples:\n"
        "  bash    echo 'eval \"$(s3dataset completion bash)\"' >> ~/.bashrc\n"
        "  zsh     echo 'eval \"$(s3dataset completion zsh)\"' >> ~/.zshrc        (after compinit)\n"
        "  fish    s3dataset completion fish > ~/.config/fish/completions/s3dataset.fish",
        formatter_class=HelpLayout,
    )
    parser.add_argument("shell", choices=sorted(_SCRIPTS))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._cli import build_parser  # noqa: PLC0415 - it imports this module

    print(_SCRIPTS[arguments.shell](described(build_parser())), end="")
    return 0


# -- What there is to complete -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its names, what it takes (None: nothing; choices, else file names), and its help."""

    names: tuple[str, ...]
    takes: tuple[str, ...] | None
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the words that lead to it, its help, options, choices of its positional arguments, and subcommands."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]
    commands: "tuple[Command, ...]" = field(default=())


def described(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), help_text: str = "") -> Command:
    """What a parser takes, subcommands included."""
    options, choices, commands = [], list[str](), list[Command]()
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            commands = [described(sub, (*words, name), helps.get(name, "")) for name, sub in action.choices.items()]
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            takes = None if action.nargs == 0 else tuple(map(str, action.choices or ()))
            options.append(Option(tuple(action.option_strings), takes, (action.help or "").replace("%%", "%")))
        else:
            choices += map(str, action.choices or ())
    return Command(words, help_text, tuple(options), tuple(choices), tuple(commands))


def walk(command: Command) -> Iterator[Command]:
    """The command and all below it."""
    yield command
    for sub in command.commands:
        yield from walk(sub)


# -- bash --------------------------------------------------------------------------------------------------------------


def bash(root: Command) -> str:
    """Keeps the command's words as far as they are known; options that take something swallow the next word."""
    cases = []
    for command in walk(root):
        words = [sub.words[-1] for sub in command.commands] or list(command.choices)
        names = [name for option in command.options for name in option.names]
        valued = [name for option in command.options if option.takes is not None for name in option.names]
        cases.append(
            f"    {shlex.quote(' '.join(command.words))})\n"
            f"      words={shlex.quote(' '.join(words))}\n"
            f"      options={shlex.quote(' '.join(names))}\n"
            f"      valued={shlex.quote(' '.join(valued))} ;;\n"
        )
    choices = "".join(
        f"    {shlex.quote(' '.join((*command.words, name)))}) words={shlex.quote(' '.join(option.takes))} ;;\n"
        for command in walk(root)
        for option in command.options
        if option.takes
        for name in option.names
    )
    known = "|".join(shlex.quote(" ".join(command.words)) for command in walk(root) if command.words)
    return f"""# bash completion of s3dataset
_s3dataset_describe() {{
  case "$1" in
{"".join(cases)}  esac
}}
_s3dataset_files() {{
  local IFS=$'\\n'
  COMPREPLY=($(compgen -f -- "$1"))
}}
_s3dataset() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" command="" words options valued word i takes=""
  COMPREPLY=()
  _s3dataset_describe ""
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{COMP_WORDS[i]}}"
    if [[ -n $takes ]]; then takes=""; continue; fi
    if [[ " $valued " == *" $word "* ]]; then takes="$word"; continue; fi
    case "${{command:+$command }}$word" in
      {known}) command="${{command:+$command }}$word"; _s3dataset_describe "$command" ;;
    esac
  done
  if [[ -n $takes ]]; then
    words=""
    case "${{command:+$command }}$takes" in
{choices}      *) _s3dataset_files "$current"; return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  elif [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    _s3dataset_files "$current"
  fi
}}
complete -o filenames -F _s3dataset s3dataset
"""


# -- zsh ---------------------------------------------------------------------------------------------------------------


def zsh(root: Command) -> str:
    """A function for each command, by zsh's own `_arguments`."""
    functions = "".join(_zsh_function(command) for command in walk(root))
    return f"#compdef s3dataset\n{functions}compdef _s3dataset s3dataset\n"


def _zsh_name(words: tuple[str, ...]) -> str:
    return "_".join(("_s3dataset", *words))


def _zsh_function(command: Command) -> str:
    specs = []
    for option in command.options:
        told = _zsh_text(option.help)
        takes = (
            "" if option.takes is None else f":value:({' '.join(option.takes)})" if option.takes else ":value:_files"
        )
        others = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
        specs += [f"{others}{name}[{told}]{takes}" for name in option.names]
    lines = [f"    {shlex.quote(spec)} \\\n" for spec in specs]
    name = _zsh_name(command.words)
    if not command.commands:
        rest = f"*:argument:({' '.join(command.choices)})" if command.choices else "*:file:_files"
        return f"{name}() {{\n  _arguments -s \\\n{''.join(lines)}    {shlex.quote(rest)}\n}}\n"
    subs = "\n".join(f"    {shlex.quote(f'{sub.words[-1]}:{sub.help}')}" for sub in command.commands)
    cases = "\n".join(f"      {sub.words[-1]}) {_zsh_name(sub.words)} ;;" for sub in command.commands)
    return (
        f"{name}() {{\n  local context state line\n  local -a commands=(\n{subs}\n  )\n  _arguments -C \\\n"
        f"{''.join(lines)}    '1:command:->command' '*::argument:->argument'\n"
        f"  case $state in\n  command) _describe command commands ;;\n  argument)\n    case $line[1] in\n{cases}\n"
        "    esac ;;\n  esac\n}\n"
    )


def _zsh_text(text: str) -> str:
    return "".join(f"\\{c}" if c in "[]:\\" else c for c in text.replace("\n", " "))


# -- fish --------------------------------------------------------------------------------------------------------------


def fish(root: Command) -> str:
    """A line for each word and option, with the condition in which it counts."""
    lines = ["# fish completion of s3dataset"]
    for command in walk(root):
        if not command.words:
            condition = "__fish_use_subcommand"
        else:
            seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
            # "ls" is a command, and an action of another one.
            above = [
                other.words[0] for other in root.commands for sub in other.commands if sub.words[1:] == command.words
            ]
            others = " ".join([*above, *(sub.words[-1] for sub in command.commands)])
            condition = seen + (f"; and not __fish_seen_subcommand_from {others}" if others else "")
        begin = f"complete -c s3dataset -n {_fish(condition)}"
        if command.commands or command.choices:
            lines += [f"{begin} -f -a {sub.words[-1]} -d {_fish(sub.help)}" for sub in command.commands]
            lines += [f"{begin} -f -a {_fish(choice)}" for choice in command.choices]
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            takes = "" if option.takes is None else f" -x -a {_fish(' '.join(option.takes))}" if option.takes else " -r"
            lines.append(f"{begin} {names}{takes} -d {_fish(option.help)}")
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_SCRIPTS: Final = {"bash": bash, "zsh": zsh, "fish": fish}
