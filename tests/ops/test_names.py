"""A name that stands for one thing in a module stands for no other one further down."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_no_constant_of_a_module_is_given_two_values() -> None:
    """The later one would hold for the earlier one's users as well: a pool's patience became five minutes so."""
    twice = []
    for package in ("accounts", "mailcore", "webmail"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_bytes())
            targets = [each.targets[0] for each in tree.body if isinstance(each, ast.Assign)]
            targets += [each.target for each in tree.body if isinstance(each, ast.AnnAssign)]
            named = Counter(each.id for each in targets if isinstance(each, ast.Name) and each.id.isupper())
            twice += [f"{path.relative_to(ROOT)}: {name}" for name, count in named.items() if count > 1]
    assert twice == []
