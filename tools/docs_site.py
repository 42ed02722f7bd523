"""A hook of mkdocs: what the site has beside docs/, and links that hold on GitHub and on the site.

README.md, CHANGELOG.md, the examples and the tutorial's notebook become pages, and so does the reference, which is made
of docstrings without importing anything. Links in all of them are written as files of the repository have them; here
they are turned to the site's pages.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "examples/getting_started.ipynb"

# File of the repository: page of the site. Those in docs/ keep their names.
BESIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples/index.md",
    NOTEBOOK: "tutorial.md",
}

# Page: title, what stands above, and what is described.
REFERENCE: dict[str, tuple[str, str, list[str]]] = {
    "datasets": (
        "Datasets and loaders",
        (
            "Guides: [datasets](../datasets.md), [shuffle and resume](../shuffle-and-resume.md). A dataset's type "
            "parameter is what the transform returns; without one it is `S3Reader`, or with `format` a `Sample`."
        ),
        [
            *("S3MapDataset", "S3IterableDataset", "DataLoader", "BatchSampler", "MixedDataset", "Shuffle", "Split"),
            *("sample_rng", "merge_states", "gather_state", "resume_state", "Stats"),
            "StagedDataset",
        ],
    ),
    "manifest": (
        "Manifest and pack",
        "Guides: [datasets](../datasets.md), [shards](../shards.md), [packing](../packing.md).",
        ["Manifest", "pack"],
    ),
    "checkpoints": (
        "Checkpoints",
        "Guide: [checkpoints](../checkpoints.md).",
        ["S3Checkpoint", "CheckpointManager", "CheckpointInfo", "Restored"],
    ),
    "client": (
        "Client, readers and writers",
        "Settings beside those here come from the [environment](../environment.md).",
        ["S3Client", "Body", "ObjectInfo", "S3ClientConfig", "S3Reader", "S3ReaderConstructor", "S3Writer"],
    ),
    "errors": ("s3dataset.errors", "", ["errors"]),
    "transforms": ("s3dataset.transforms", "", ["transforms"]),
    "formats": ("s3dataset.formats", "Guide: [shards](../shards.md).", ["formats"]),
    "dcp": ("s3dataset.dcp", "Guide: [distributed checkpoints](../dcp.md).", ["dcp"]),
    "safetensors": ("s3dataset.safetensors", "Guide: [safetensors](../safetensors.md).", ["safetensors"]),
    "lightning": ("s3dataset.lightning", "Guide: [Lightning](../lightning.md).", ["lightning"]),
    "fsspec": ("s3dataset.fsspec", "Guide: [fsspec](../fsspec.md).", ["fsspec"]),
    "testing": (
        "s3dataset.testing",
        "Guides: [testing your code](../testing-your-code.md), [the local S3](../local-s3.md).",
        ["testing"],
    ),
    "monitoring": ("s3dataset.monitoring", "", ["monitoring"]),
}

# Made by methods of their own, or by others: their constructors are nobody's business.
MADE_ELSEWHERE = frozenset(
    {"S3MapDataset", "S3IterableDataset", "Manifest", "Body", "S3Reader", "S3Writer", "StagedDataset"}
)

# What the package's own modules call, and docs/stability.md promises nobody.
INTERNAL = {
    "Manifest": ["num_frames", "open", "path", "places", "publish", "ref", "rows", "shard_ends", "shard_head"],
    "S3Client": [
        *("adopt", "after_fork_in_child", "before_fork", "buffer", "fetch", "loaded", "preload", "queue", "ref"),
        *("service", "settle", "share_keys", "user_agent_prefix"),
    ],
    "S3ClientConfig": ["is_left_out"],
    "S3Writer": ["save_held"],
    "Shuffle": ["buffer_limits", "resolved_block_bytes"],
    "Split": ["resolved_tail"],
}

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^(\s*)(```+|~~~+)")


# -- Pages beside docs/ ----------------------------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, target in beside().items():
        files.append(File.generated(config, target, content=page_of(name)))
    for name, (title, above, described) in REFERENCE.items():
        parts = [f"# {title}", above, *map(reference_of, described)]
        files.append(File.generated(config, f"reference/{name}.md", content="\n\n".join(parts) + "\n"))
    return files


def reference_of(name: str) -> str:
    options: dict[str, Any] = {"merge_init_into_class": False} if name in MADE_ELSEWHERE else {}
    if name in INTERNAL:
        options["filters"] = ["!^_", "^__(getitem|getitems|len)__$", f"!^({'|'.join(INTERNAL[name])})$"]
    return f"::: s3dataset.{name}\n" + (f"    options: {json.dumps(options)}" if options else "")


def beside() -> dict[str, str]:
    programs = {f"examples/{file.name}": f"examples/{file.stem}.md" for file in (ROOT / "examples").glob("*.py")}
    return {name: page for name, page in (BESIDE | programs).items() if (ROOT / name).exists()}


def page_of(name: str) -> str:
    text = (ROOT / name).read_text()
    if name.endswith(".py"):
        return f"# {Path(name).name}\n\n```python\n{text}```\n"
    return notebook_page(json.loads(text)) if name.endswith(".ipynb") else text


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown: its text, its code, and what came of it."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"```python\n{source}\n```")
            parts += outputs(cell["outputs"])
    return "\n\n".join(parts) + "\n"


def outputs(given: list[dict[str, Any]]) -> Iterator[str]:
    """Pictures, and text, of which consecutive pieces are one."""
    for of_text, pieces in groupby(map(output_of, given), key=lambda output: output[0]):
        if not of_text:
            yield from (picture for _, picture in pieces)
        elif text := "".join(piece for _, piece in pieces).rstrip():
            yield f"```{{ .text .output }}\n{text}\n```"


def output_of(output: dict[str, Any]) -> tuple[bool, str]:
    """-> whether it is text, and what it is."""
    data = output.get("data", {})
    if "image/png" in data:
        encoded = "".join(data["image/png"]).replace("\n", "")
        return False, f'<img alt="What the cell draws" src="data:image/png;base64,{encoded}">'
    text = "".join(output.get("text", data.get("text/plain", output.get("traceback", ""))))
    return True, re.sub(r"\x1b\[[0-9;]*m", "", text)


# -- Links -----------------------------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs names them
    here = page.file.src_uri
    known = beside()
    source = {target: name for name, target in known.items()}.get(here, f"docs/{here}")

    def turned(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(path)))
        found = next((place for place in places(path, known) if files.get_file_from_path(place)), None)
        if found is None:
            return (
                text if (ROOT / path).exists() else match[0]
            )  # a file of the repository alone; or nothing: mkdocs warns
        link = posixpath.relpath(found, posixpath.dirname(here) or ".")
        return f"{mark}[{text}]({link}{'#' + anchor if anchor else ''})"

    return "".join(part if in_code else LINK.sub(turned, part) for part, in_code in with_code(markdown))


def places(path: str, known: dict[str, str]) -> Iterator[str]:
    """Where on the site a file or folder of the repository may be."""
    for name in (path, posixpath.join(path, "README.md")):
        if name in known:
            yield known[name]
        if name.startswith("docs/"):
            yield name.removeprefix("docs/")


def with_code(markdown: str) -> Iterator[tuple[str, bool]]:
    """Lines, and whether each is part of a block of code."""
    fence = ""
    for line in markdown.splitlines(keepends=True):
        match = FENCE.match(line)
        if fence:
            yield line, True
            if match and line.strip() == fence:
                fence = ""
        else:
            fence = match[2] if match else ""
            yield line, bool(fence)


# -- Docstrings ------------------------------------------------------------------------------------------------------


class AsMarkdown(griffe.Extension):
    """Docstrings as Markdown has them: blocks announced by "::", and defaults that were left out."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^::\n", "\n", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::\n\n(?=    )", ":\n\n", text)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for field in pkg["_config._settings.S3ClientConfig"].attributes.values():
            plain = re.fullmatch(r"_unset\((.*)\)", str(field.value or ""))
            if plain:
                field.value = plain[1].replace("8 * _MIB", "8 << 20")
