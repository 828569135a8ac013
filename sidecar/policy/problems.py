"""What's wrong with a policy, and where: positions, problems and the error that carries all of them."""

from dataclasses import dataclass

from sidecar.errors import SidecarError

type Path = tuple[str | int, ...]  # ("rules", 3, "allow", 0)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or, as a warning, one that is doubtful."""

    position: Position
    path: Path
    message: str

    @property
    def line(self) -> int:
        return self.position.line

    @property
    def column(self) -> int:
        return self.position.column

    @property
    def where(self) -> str:
        """``rules[3].allow[0]``; empty for the document as a whole."""
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path).removeprefix(".")

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}: "
        return f"{place}{self.where}: {self.message}" if self.path else place + self.message


class PolicyError(SidecarError):
    """A policy can't be used. The text has one line per problem, each with file, line and column."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.position))
        super().__init__("\n".join(f"{source}:{problem}" for problem in self.problems))


class PolicyFileError(PolicyError):
    """The file can't be read at all: missing, a directory, not permitted, too large, not UTF-8."""

    def __init__(self, source: str, message: str) -> None:
        super().__init__(source, (Problem(Position(1, 1), (), message),))
        self.args = (f"{source}: {message}",)
