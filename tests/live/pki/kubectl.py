"""``kubectl`` on `tests.live.pki.cluster.Cluster`: the commands of deploy/pki, and none that it doesn't know."""

import argparse
import base64
import os
import sys
from pathlib import Path

from tests.live.pki.cluster import Cluster

ARGUMENTS = argparse.ArgumentParser(prog="kubectl", allow_abbrev=False)
VERBS = ARGUMENTS.add_subparsers(dest="verb", required=True)
APPLY = VERBS.add_parser("apply")
APPLY.add_argument("-f", dest="file", type=Path, required=True)
ANNOTATE = VERBS.add_parser("annotate")
ANNOTATE.add_argument("kind", choices=["externalsecret"])
ANNOTATE.add_argument("name")
ANNOTATE.add_argument("annotation")
ANNOTATE.add_argument("--overwrite", action="store_true", required=True)
DELETE = VERBS.add_parser("delete")
DELETE.add_argument("kind", choices=["secret"])
DELETE.add_argument("name")
GET = VERBS.add_parser("get")
GET.add_argument("kind", choices=["secret", "configmap"])
GET.add_argument("name")
GET.add_argument("-o", dest="output", required=True)
LOGS = VERBS.add_parser("logs")
LOGS.add_argument("name")
LOGS.add_argument("-c", dest="container", choices=["egress-sidecar"], required=True)
for verb in (ANNOTATE, DELETE, GET, LOGS):
    verb.add_argument("-n", dest="namespace", required=True)


def install(folder: Path, cluster: Path, openbao: str) -> dict[str, str]:
    """Put a ``kubectl`` into *folder*; the variables with which it works. ``CLUSTER_LOGS`` is what ``logs`` shows."""
    folder.mkdir()
    command = folder / "kubectl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.live.pki.kubectl "$@"\n')
    command.chmod(0o755)
    paths = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    modules = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join(filter(None, modules)),
        "CLUSTER": str(cluster),
        "CLUSTER_OPENBAO": openbao,
    }


def main() -> None:
    given = ARGUMENTS.parse_args()
    cluster = Cluster(Path(os.environ["CLUSTER"]), os.environ["CLUSTER_OPENBAO"])
    match given.verb:
        case "apply":
            cluster.apply(given.file)
        case "annotate":
            assert given.annotation.startswith("force-sync=")
            cluster.sync()
        case "delete":
            cluster.delete_secret(given.namespace, given.name)
        case "get":
            key = given.output.removeprefix("jsonpath={.data.").removesuffix("}").replace("\\.", ".")
            data = cluster.data(given.kind, given.namespace, given.name)
            if not data:
                sys.exit(f'Error from server (NotFound): {given.kind}s "{given.name}" not found')
            value = data.get(key, b"")
            sys.stdout.write((base64.b64encode(value) if given.kind == "secret" else value).decode())
        case "logs":
            sys.stdout.write(Path(os.environ["CLUSTER_LOGS"]).read_text())


if __name__ == "__main__":
    main()
