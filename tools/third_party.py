"""What is compiled into the wheel besides our own code: `python3 tools/third_party.py [--check]`.

Writes THIRD-PARTY-LICENSES.txt, which every wheel and the source distribution carry, from Cargo.lock and the licence
files of the crates; `--check` only says whether it is up to date. `bill_of_materials` is the same list for one target,
as CycloneDX. Crates that only run in the compiler (procedural macros, build scripts) are not in the wheel and not in
the lists.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "THIRD-PARTY-LICENSES.txt"
TARGETS = ("aarch64-apple-darwin", "aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "x86_64-unknown-linux-gnu")
PREFERRED = ("MIT", "ISC", "BSD-3-Clause", "Apache-2.0")  # of several that a crate offers; the first is the shortest
STANDARD_LIBRARY = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


@dataclass(frozen=True)
class Crate:
    """One that is linked into the wheel."""

    name: str
    version: str
    license: str
    folder: Path
    published: bool
    needs: tuple[str, ...]  # package URLs

    @property
    def purl(self) -> str:
        """Its package URL."""
        return purl(self.name, self.version)


def purl(name: str, version: str) -> str:
    return f"pkg:cargo/{name}@{version}"


def crates(target: str) -> list[Crate]:
    """Every crate whose code is in the wheel for `target`, ours first."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

    def linked(node: dict[str, Any]) -> list[str]:
        normal = [d["pkg"] for d in node["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])]
        return [name for name in normal if not any("proc-macro" in t["kind"] for t in packages[name]["targets"])]

    queue = [name for name, package in packages.items() if package["name"] == "s3dataset-python"]
    found: dict[str, Crate] = {}
    while queue:
        name = queue.pop()
        if name in found:
            continue
        package, needs = packages[name], linked(nodes[name])
        queue += needs
        found[name] = Crate(
            package["name"],
            package["version"],
            (package["license"] or "").replace("/", " OR "),
            Path(package["manifest_path"]).parent,
            package["source"] is not None,
            tuple(sorted(purl(packages[need]["name"], packages[need]["version"]) for need in needs)),
        )
    return sorted(found.values(), key=lambda crate: (crate.published, crate.name, crate.version))


def chosen(expression: str) -> str:
    """The one licence that we take of those offered; the expression itself where all hold at once."""
    offered = expression.split(" OR ")
    return next((licence for licence in PREFERRED if licence in offered), expression)


def texts(crate: Crate) -> list[str]:
    """The crate's own licence files for the licence chosen, notices included."""
    files = sorted(f for f in crate.folder.iterdir() if re.match(r"(?i)licen[sc]e|copying|notice|copyright", f.name))
    short = chosen(crate.license).split("-")[0].lower()
    named = [f for f in files if short in f.name.lower() or f.name.lower().startswith("notice")]
    plain = [f for f in files if re.fullmatch(r"(?i)licen[sc]e(\.\w+)?|copying|notice.*", f.name)]
    wanted = files if " AND " in crate.license else named or plain
    if not wanted:
        sys.exit(f"{crate.name} {crate.version} ({crate.license}) has no licence file for {chosen(crate.license)}")
    return ["\n".join(line.rstrip() for line in f.read_text(encoding="utf-8").strip().splitlines()) for f in wanted]


def licences() -> str:
    """The document: each text once, below the crates that it is for."""
    union = {(crate.name, crate.version): crate for target in TARGETS for crate in crates(target) if crate.published}
    holders: dict[str, list[str]] = {}
    for (name, version), crate in sorted(union.items()):
        holders.setdefault("\n\n".join(texts(crate)), []).append(f"{name} {version} ({chosen(crate.license)})")
    rule = "=" * 100
    ours = "The wheels of s3dataset contain, compiled, the Rust standard library and the crates below. Where a crate\n"
    ours += "offers several licences, the one in parentheses was chosen. Written by tools/third_party.py."
    standard = "The Rust standard library (MIT), by the contributors of the Rust Project"
    parts = [ours, f"{rule}\n{standard}\n{rule}\n\n{STANDARD_LIBRARY}"]
    parts += [f"{rule}\n" + "\n".join(names) + f"\n{rule}\n\n{text}" for text, names in holders.items()]
    return "\n\n".join(parts) + "\n"


def bill_of_materials(target: str, version: str) -> str:
    """CycloneDX 1.5 of a wheel; the same for the same Cargo.lock, wherever and whenever it is made."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    digests = {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}
    ours = f"pkg:pypi/s3dataset@{version}"
    components, dependencies = [], []
    for crate in crates(target):
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": crate.purl,
            "name": crate.name,
            "version": crate.version,
            "licenses": [{"expression": crate.license}],
        }
        if crate.published:
            component["purl"] = crate.purl
            component["hashes"] = [{"alg": "SHA-256", "content": digests[crate.name, crate.version]}]
        components.append(component)
        dependencies.append({"ref": crate.purl, "dependsOn": list(crate.needs)})
        if crate.name == "s3dataset-python":
            dependencies.append({"ref": ours, "dependsOn": [crate.purl]})
    body = {
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": ours,
                "name": "s3dataset",
                "version": version,
                "purl": ours,
                "licenses": [{"expression": "BSD-3-Clause"}],
            },
            "properties": [{"name": "cdx:rustc:sbom:target:triple", "value": target}],
        },
        "components": components,
        "dependencies": dependencies,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return json.dumps({**head, **body}, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    arguments = parser.parse_args()
    document = licences()
    if not arguments.check:
        OUTPUT.write_text(document, encoding="utf-8")
    elif not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != document:
        sys.exit(f"{OUTPUT.name} does not tell what Cargo.lock brings: make licenses")


if __name__ == "__main__":
    main()
