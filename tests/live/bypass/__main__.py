"""Makes every attempt and writes docs/bypass-matrix.md; exit code 1 where one wasn't held."""

import sys

from tests.live.bypass import table
from tests.live.bypass.lab import laboratory
from tests.live.bypass.scenes import SCENES
from tests.live.bypass.vectors import SECTIONS
from tests.live.pod import FORBIDDEN_CAPABILITIES


def main() -> int:
    with laboratory() as lab:
        seen = {title: [lab.observe(vector) for vector in vectors] for title, vectors in SECTIONS.items()}
        seen["When the sidecar is gone"] = [scene.play(lab) for scene in SCENES]
    table.PAGE.write_text(table.page(seen, FORBIDDEN_CAPABILITIES))
    missed = [row for rows in seen.values() for row in rows if row.problems]
    for row in missed:
        print(f"{row.id}: {'; '.join(row.problems)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
