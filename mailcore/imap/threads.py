"""Threading algorithms of THREAD: ORDEREDSUBJECT and REFERENCES (RFC 5256 §3), REFS (draft-ietf-morg-inthread).

Pure functions over messages in the order of their sent dates, so that an index is a date. None of them raises or
recurses; their cost is linear but for sorting, however messages refer to each other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mailcore.store.ordering import unpack

Row = tuple[int, str, bytes, datetime]  # UID, base subject as compared, store.ordering.ancestry, internal date

_NONE = -1
# Steps up the tree that a link may cost on average before links that need more are left out: only an attack does.
_STEPS = 64


@dataclass(frozen=True, slots=True)
class Threads:
    """The answer: `form` writes it, with a %d for each of `uids` in turn."""

    form: bytes
    uids: array[int]


@dataclass(slots=True)
class _Forest:
    """Nodes are indexes of messages; greater ones are dummies, which occur only among the roots."""

    size: int
    roots: list[int]
    children: dict[int, list[int]] = field(default_factory=dict)

    def first(self, root: int) -> int:
        """The message that a root is sorted and named by: its own, or the first child of a dummy."""
        return root if root < self.size else min(self.children[root])

    def members(self, root: int) -> list[int]:
        """The messages of a thread."""
        found, stack = [], [root]
        while stack:
            node = stack.pop()
            if node < self.size:
                found.append(node)
            stack += self.children.get(node, ())
        return found


def ordered_subject(rows: Sequence[Row]) -> Threads:
    """Messages of one base subject are a thread: the first one, and all others as its children."""
    threads: dict[str, list[int]] = {}
    for index, (_, subject, _, _) in enumerate(rows):
        threads.setdefault(subject, []).append(index)
    roots = [first for first, *_ in threads.values()]
    return _write(rows, _Forest(len(rows), roots, {first: rest for first, *rest in threads.values() if rest}))


def references(rows: Sequence[Row]) -> Threads:
    """By References and In-Reply-To, then threads of the same subject together; siblings by sent date."""
    forest, replies = _by_references(rows)
    forest.roots.sort(key=forest.first)
    _gather_subjects(forest, [subject for _, subject, _, _ in rows], replies)
    for siblings in forest.children.values():
        siblings.sort()
    forest.roots.sort(key=forest.first)
    return _write(rows, forest)


def refs(rows: Sequence[Row]) -> Threads:
    """By References and In-Reply-To alone; threads by what came last into each, siblings by sent date."""
    forest, _ = _by_references(rows)
    for siblings in forest.children.values():
        siblings.sort()
    newest = {root: max((rows[index][3], index) for index in forest.members(root)) for root in forest.roots}
    forest.roots.sort(key=newest.__getitem__)
    return _write(rows, forest)


ALGORITHMS: dict[str, Callable[[Sequence[Row]], Threads]] = {
    "ORDEREDSUBJECT": ordered_subject,
    "REFERENCES": references,
    "REFS": refs,
}


# -- steps 1 to 3: who answers whom


class _Links:
    """Parents of messages and of the dummies that stand for missing ones (step 1)."""

    __slots__ = ("children", "parents", "steps")

    def __init__(self, messages: int, steps: int) -> None:
        self.parents = [_NONE] * messages
        self.children = [0] * messages
        self.steps = steps

    def dummy(self) -> int:
        self.parents.append(_NONE)
        self.children.append(0)
        return len(self.parents) - 1

    def link(self, parent: int, child: int) -> None:
        """Unless that made a loop."""
        if self.children[child]:  # only then may the parent be below it
            node = parent
            while node != _NONE:
                self.steps -= 1
                if node == child or self.steps < 0:
                    return
                node = self.parents[node]
        elif parent == child:
            return
        self.parents[child] = parent
        self.children[parent] += 1

    def cut(self, child: int) -> None:
        parent = self.parents[child]
        if parent != _NONE:
            self.children[parent] -= 1
            self.parents[child] = _NONE


def _by_references(rows: Sequence[Row]) -> tuple[_Forest, list[bool]]:
    """The forest without dummies but for roots of several messages, unsorted; and which messages are replies."""
    unpacked = [unpack(ancestry) for _, _, ancestry, _ in rows]
    in_order = sorted(range(len(rows)), key=lambda index: rows[index][0])
    nodes: dict[int, int] = {}
    for index in in_order:
        own = unpacked[index][1]
        if own:
            nodes.setdefault(own, index)  # the first message with an id has it
    links = _Links(len(rows), _STEPS * (len(rows) + sum(len(found[2]) for found in unpacked)))
    for index in in_order:
        last = _NONE
        for reference in unpacked[index][2]:
            node = nodes.get(reference)
            if node is None:
                node = nodes[reference] = links.dummy()
            if last != _NONE and links.parents[node] == _NONE:
                links.link(last, node)
            last = node
        links.cut(index)
        if last != _NONE:
            links.link(last, index)
    return _pruned(len(rows), links.parents), [reply for reply, _, _ in unpacked]


def _pruned(size: int, parents: list[int]) -> _Forest:
    """Without dummies, whose children take their place; only among the roots several stay together (steps 2, 3)."""
    # For each dummy the message above it, or else the topmost dummy.
    above: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    roots: list[int] = []
    for index in range(size):
        node, passed = parents[index], []
        while node >= size and node not in above:
            passed.append(node)
            node = parents[node]
        if node == _NONE and passed:
            node = passed[-1]
        node = above.get(node, node)
        above.update(dict.fromkeys(passed, node))
        if node == _NONE:
            roots.append(index)
        else:
            children.setdefault(node, []).append(index)
    for node in [node for node in children if node >= size]:
        if len(children[node]) > 1:
            roots.append(node)
        else:
            roots += children.pop(node)
    return _Forest(size, roots, children)


# -- step 5: threads of the same subject


def _gather_subjects(forest: _Forest, subjects: Sequence[str], replies: Sequence[bool]) -> None:
    size, children = forest.size, forest.children
    table: dict[str, int] = {}
    for root in forest.roots:
        subject = subjects[forest.first(root)]
        if not subject:
            continue
        known = table.get(subject)
        if known is None or (known < size and (root >= size or (replies[known] and not replies[root]))):
            table[subject] = root
    roots: dict[int, None] = dict.fromkeys(forest.roots)
    dummy = max((node for node in children if node >= size), default=size)
    for root in forest.roots:
        subject = subjects[forest.first(root)]
        known = table.get(subject, root)
        if known == root:
            continue
        del roots[root]
        if known >= size:
            children[known] += children.pop(root) if root >= size else [root]
        elif root < size and replies[root] and not replies[known]:
            children.setdefault(known, []).append(root)
        else:
            dummy += 1
            children[dummy] = [known, root]
            del roots[known]
            roots[dummy] = None
            table[subject] = dummy
    forest.roots = list(roots)


# -- the answer


def _write(rows: Sequence[Row], forest: _Forest) -> Threads:
    """Parents and only children stand side by side, several children each in parentheses."""
    words: list[bytes] = []
    order: list[int] = []
    size, children = forest.size, forest.children
    stack = forest.roots[::-1]  # nodes that begin a thread; _NONE ends one
    while stack:
        node = stack.pop()
        if node == _NONE:
            words.append(b")")
            continue
        words.append(b"(")
        while True:
            below = children.get(node, ())
            if node < size:
                order.append(rows[node][0])
                words.append(b"%d " if below else b"%d")
            if len(below) != 1:
                break
            node = below[0]
        stack.append(_NONE)
        stack += reversed(below)
    return Threads(b"".join(words), array("I", order))
