"""docs/architecture.svg: the rooms of src/kdleak and who imports whom. `make readme` draws it anew with the figures.

The order of the layers is the contract in pyproject.toml; the arrows are the imports of the code. An arrow is left out
where a longer way through other rooms says the same.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, BOX, HEIGHT = 860, 64, 170, 34
#: Room -> what it is for, in a few words.
ROOMS = {
    "cli": "commands",
    "api": "kdleak.audit()",
    "report": "pages, claims",
    "tracking": "MLflow",
    "pipeline": "DVC's stages",
    "auditing": "one audit engine",
    "certify": "bounds on ε",
    "shadow": "many trainings",
    "defend": "defences",
    "attacks": "membership",
    "memorization": "verbatim, exposure",
    "distill": "methods",
    "training": "the one loop",
    "inference": "scores, generation",
    "models": "families, folders",
    "data": "records, roles",
    "render": "charts, wording",
    "stats": "intervals, tests",
    "config": "params.yaml",
    "core": "files, errors",
}


def layers() -> list[list[str]]:
    """The contract's layers from top to bottom, with the rooms that exist."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = next(each["layers"] for each in contracts if each["id"] == "layers")
    rooms = [[name.strip(" ()") for name in layer.split("|")] for layer in listed]
    there = {path.stem for path in (ROOT / "src" / "kdleak").iterdir()}
    return [[room for room in layer if room in there] for layer in rooms]


def imports() -> dict[str, set[str]]:
    """Room -> the rooms below it that its files import."""
    rooms = {room: depth for depth, layer in enumerate(layers()) for room in layer}
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for path in sorted((ROOT / "src" / "kdleak").rglob("*.py")):
        room = path.relative_to(ROOT / "src" / "kdleak").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = {name.split(".")[1] for name in names if name.startswith("kdleak.")}
            if room in rooms:
                found[room] |= {each for each in targets & set(rooms) if rooms[each] > rooms[room]}
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that a longer way says too."""

    def reach(room: str, seen: frozenset[str] = frozenset()) -> set[str]:
        ahead = graph[room] - seen
        return ahead.union(*(reach(each, seen | ahead) for each in ahead)) if ahead else set()

    return {
        room: {each for each in targets if not any(each in reach(other) for other in targets - {each})}
        for room, targets in graph.items()
    }


def picture() -> str:
    """The SVG: a row a layer, arrows from who imports to who is imported."""
    rows = [layer for layer in layers() if layer]
    place = {}
    for row, layer in enumerate(rows):
        step = WIDTH / len(layer)
        for column, room in enumerate(layer):
            # Rows of one room swing from side to side, so that an arrow past one does not run through it.
            swing = (-1) ** row * 130 if len(layer) == 1 and 0 < row < len(rows) - 1 else 0
            place[room] = (step * (column + 0.5) + swing, 30 + row * ROW)
    arrows, boxes = [], []
    for room, targets in sorted(reduced(imports()).items()):
        for target in sorted(targets):
            (x0, y0), (x1, y1) = place[room], place[target]
            start, end = y0 + HEIGHT / 2, y1 - HEIGHT / 2 - 5
            bend = (end - start) / 2
            first, second = f"{x0:.0f},{start + bend:.0f}", f"{x1:.0f},{end - bend:.0f}"
            curve = f"M{x0:.0f},{start:.0f} C{first} {second} {x1:.0f},{end:.0f}"
            arrows.append(f'<path class="a" d="{curve}"/>')
    for room, (x, y) in place.items():
        left, top = x - BOX / 2, y - HEIGHT / 2
        boxes.append(f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX}" height="{HEIGHT}" rx="6"/>')
        boxes.append(f'<text x="{x:.0f}" y="{y - 1:.0f}" class="room">{room}</text>')
        boxes.append(f'<text x="{x:.0f}" y="{y + 12:.0f}" class="what">{ROOMS[room]}</text>')
    height = 60 + (len(rows) - 1) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of kdleak in layers; arrows point downwards.">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#7a8794"/></marker></defs>\n'
        "<style>svg{background:#fff}.a{fill:none;stroke:#7a8794;stroke-width:1.2;marker-end:url(#tip)}"
        "rect{fill:#eef3f8;stroke:#33658a}text{text-anchor:middle;font-family:sans-serif;fill:#1c2733}"
        ".room{font-size:13px;font-weight:600}.what{font-size:10px}</style>\n"
    )
    return head + "\n".join([*arrows, *boxes]) + "\n</svg>\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
