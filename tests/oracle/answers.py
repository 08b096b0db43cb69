"""Scripts and answers as text (README.md), the table of accepted differences, and the comparison."""
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent


def parse(text):
    """{script: [(step, answer or None), …]} in order."""
    scripts, steps = {}, None
    for line in text.splitlines():
        if line.startswith("= "):
            steps = scripts.setdefault(line[2:], [])
        elif line and line[0] not in "#!" and steps is not None:
            step, arrow, answer = line.partition(" => ")
            steps.append((step, answer if arrow else None))
    return scripts


def render(scripts):
    out = []
    for name, steps in scripts.items():
        out.append(f"= {name}")
        out += [step if answer is None else f"{step} => {answer}" for step, answer in steps]
        out.append("")
    return "\n".join(out)


class Accepted:
    """Rows of accepted.md: | name | step | kernel | engine | reason |, regular expressions that match wholly.
    Groups are counted through the row."""

    def __init__(self):
        self.rows, self.used = [], {}
        for line in (HERE / "accepted.md").read_text().splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) != 5 or cells[0] in ("Name", "") or set(cells[0]) == {"-"}:
                continue
            # As one, so that a cell can refer to what one before it has matched. "." matches no line's end.
            pattern = "\n".join(cell.strip("`").replace("\\|", "|") for cell in cells[1:4])
            self.rows.append((cells[0], re.compile(pattern)))

    def find(self, step, kernel, engine):
        for name, pattern in self.rows:
            if pattern.fullmatch("\n".join((step, kernel, engine))):
                self.used[name] = self.used.get(name, 0) + 1
                return name
        return None


def first_difference(kernel, engine, accepted):
    """Index and both answers of the first step that differs; None when alike. An accepted difference ends the
    comparison of its script: what follows depends on it."""
    for index, (step, wanted) in enumerate(kernel):
        got = engine[index][1] if index < len(engine) else "(no answer)"
        wanted = "(no answer)" if wanted is None else wanted
        if wanted == got:
            continue
        return None if accepted.find(step, wanted, got) else (index, wanted, got)
    return None
