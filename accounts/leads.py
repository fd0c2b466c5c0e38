"""Where an address leads, for whoever changes it: targets as they are stored, and no circle among them.

Asked in bulk, a level of aliases at a time, because a group may have thousands of members.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accounts.addresses import CATCH_ALL, Parsed, fold_local, parse_address, quote_local, split_tag
from accounts.errors import AddressError, PeopleError
from accounts.models import Address, AliasTarget, Domain

MAX_ALIAS_DEPTH = 9  # aliases in a row; delivery follows no more
MAX_WAYS = 20_000  # addresses that one may lead to, as in mailcore.store.accounts
_PIECE = 1_000


def shown(text: str) -> str:
    """What somebody typed, for an error message."""
    return repr(text if len(text) <= 100 else text[:99] + "…")


def key(normalised: str) -> dict[str, str]:
    """The columns of Address by which a normalised address is found."""
    parsed = parse_address(normalised)
    return {"domain__name": parsed.domain, "local_part": quote_local(parsed.local)}


def main_name(domain: str) -> str:
    """The name that a domain's addresses are stored under: its own, unless it is another name of one."""
    return hosted([domain]).get(domain, domain)


def hosted(names: Iterable[str]) -> dict[str, str]:
    """The hosted ones of these names, each with the name that its addresses are stored under."""
    found = Domain.objects.filter(name__in=set(names)).values_list("name", "alias_of__name")
    return {name: main or name for name, main in found}


def canonical_targets(texts: Sequence[str]) -> list[str]:
    """Targets as they are stored: lower case where the domain is ours, the local part's own case elsewhere; each once.

    Raises PeopleError for what is no address.
    """
    parsed = []
    for text in texts:
        try:
            parsed.append(parse_address(text, literal=False))
        except AddressError as error:
            raise PeopleError(f"Target {shown(text)} is not a mail address: {error.text}.") from None
    ours = hosted(each.domain for each in parsed)
    return list(
        dict.fromkeys(
            str(Parsed(fold_local(each.local), ours[each.domain]) if each.domain in ours else each) for each in parsed
        )
    )


def existing_targets(texts: Sequence[str]) -> list[str]:
    """As `canonical_targets`; raises PeopleError also for an address of ours that leads nowhere."""
    targets = canonical_targets(texts)
    ours = hosted(parse_address(target).domain for target in targets)
    rows = _rows(targets)
    for target in targets:
        if target not in rows and parse_address(target).domain in ours:
            raise PeopleError(f"Target {target} does not exist here: add the account or alias first.")
    return targets


def refuse_loops(alias: str, targets: Sequence[str], kind: str = "Alias") -> None:
    """Follow new targets; none may come back to the alias, nor lead through too many aliases. Raises PeopleError."""
    level = {target: target for target in targets}  # an address, and the target that it was reached by
    seen: set[str] = set()
    for _ in range(MAX_ALIAS_DEPTH):
        aliases: dict[int, tuple[str, str]] = {}
        for address, row in _rows(list(level)).items():
            if row.account_id is not None or str(row) in seen:
                continue
            target = level[address]
            if str(row) == alias:
                raise PeopleError(
                    f"{kind} {alias} would lead to {'itself' if address == target else f'itself through {target}'}."
                )
            seen.add(str(row))
            aliases[row.pk] = (str(row), target)
        if not aliases:
            return
        level = {}
        following = AliasTarget.objects.filter(alias__in=aliases).order_by("id").values_list("alias_id", "address")
        for alias_id, address in following[: MAX_WAYS + 1]:
            level.setdefault(address, aliases[alias_id][1])
        if len(level) + len(seen) > MAX_WAYS:
            raise PeopleError(f"{kind} {alias} would lead to more than {MAX_WAYS} addresses.")
    raise PeopleError(f"{kind} {alias} would lead through more than {MAX_ALIAS_DEPTH} aliases in a row.")


def _rows(addresses: Sequence[str]) -> dict[str, Address]:
    """The address row that mail for each follows: itself, without its tag, or the catch-all. Strangers are left out."""
    parsed = {address: parse_address(address) for address in addresses}
    mains = hosted({each.domain for each in parsed.values()})
    names = {
        address: (mains[each.domain], [quote_local(each.local), quote_local(split_tag(each.local)[0]), CATCH_ALL])
        for address, each in parsed.items()
        if each.domain in mains
    }
    wanted = sorted({(domain, local) for domain, locals_ in names.values() for local in locals_})
    rows: dict[tuple[str, str], Address] = {}
    for start in range(0, len(wanted), _PIECE):
        some = wanted[start : start + _PIECE]
        for row in Address.objects.select_related("domain").filter(
            domain__name__in={domain for domain, _ in some}, local_part__in={local for _, local in some}
        ):
            rows[row.domain.name, row.local_part] = row
    found: dict[str, Address] = {}
    for address, (domain, locals_) in names.items():
        if leading := next((rows[domain, local] for local in locals_ if (domain, local) in rows), None):
            found[address] = leading
    return found
