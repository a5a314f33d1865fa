"""The configuration of a stack as a stack file: what is resolved, or what is applied.

The file that is written is the stack file (or another that exists), with only those lines changed
that must be. What was written is read again and resolved: a file that does not yield the same
configuration is refused, not written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from stackconf.drift import Past
from stackconf.errors import InvalidConfig
from stackconf.export.patches import Change, Writer
from stackconf.export.variables import Variable, Variables
from stackconf.export.wanted import Wanted, of_resolution, of_snapshot, secrecy
from stackconf.manager import Manager
from stackconf.plan import AppliedRecord, changed_paths, digester, is_unknown, last_known, snapshot
from stackconf.redact import REDACTED, names_secret, redact_text, scrubbed
from stackconf.resolve.layers import Path, canonical, dotted, value_at
from stackconf.stackfile.edit import DROP, Patch, Put, edited, recommented, replaced_scalars
from stackconf.stackfile.model import loads
from stackconf.types import Issue, Provider

if TYPE_CHECKING:
    from stackconf.manager import Resolution
    from stackconf.resolve.resolve import Resolved
    from stackconf.stackfile.model import ProviderEntry, StackFile
    from stackconf.store.base import Store
    from stackconf.types import Level

_OF_THE_MACHINE = frozenset({"missing-package"})
"""What is wrong with this machine and not with the configuration: the file may be meant for another one."""
_REFERENCE = re.compile(r"\$\{env\.([A-Z0-9_]+)")
_ASSIGNMENT = re.compile(r"(?P<head>(?P<name>[A-Za-z0-9_-]+)['\"]?\s*[:=]\s*)(?P<value>[^\s#][^\r\n]*)")


@frozen
class Exported:
    """A stack file that says all by itself what the stack is to be.

    `text` is the whole file. `changes` are the values that were written into it, `variables` what
    must be set in the environment where it is read, `issues` what could not be brought over or stands
    there in the clear.
    """

    text: str = field(repr=False)
    changes: tuple[Change, ...] = ()
    variables: tuple[Variable, ...] = ()
    issues: tuple[Issue, ...] = ()


@frozen
class Options:
    """How to export: `applied` what is applied instead of what is resolved, `whole` with what the
    classes give; `copied` says that the text becomes another file, so that no secret stays in it.
    """

    applied: bool = False
    whole: bool = False
    copied: bool = True


def export(
    manager: Manager,
    store: Store,
    base: StackFile,
    environ: Mapping[str, str],
    options: Options,
) -> Exported:
    """The stack written into the text of `base`, which is its own file or another.

    Raises `InvalidConfig` when the stack is invalid (unless what is applied is wanted), or the text
    would not be read as what it stands for.
    """
    left_out: set[str] = set()
    while True:
        run = _Export(manager, store, base, environ, options, left_out)
        exported = run.run()
        wrong = run.unfaithful(exported.text)
        bad = {key for key in wrong if options.whole and key not in left_out}
        if not bad:
            break
        left_out |= bad  # what a class gives need not be something that can be written down
    if options.applied:
        return evolve(exported, issues=(*exported.issues, *_not_same(wrong)))
    if wrong:
        raise InvalidConfig(
            "the export would not be read as it was meant; nothing was written", _not_same(wrong)
        )
    return exported


class _Export:
    """One export under way."""

    def __init__(
        self,
        manager: Manager,
        store: Store,
        base: StackFile,
        environ: Mapping[str, str],
        options: Options,
        without_defaults: Collection[str],
    ) -> None:
        self._manager, self._store, self._options = manager, store, options
        self._base, self._environ = base, environ
        self._is_own = base is manager.stack
        self._without_defaults = without_defaults
        self._digest = digester(store.digest_key())
        names = _REFERENCE.findall(base.document.text + manager.stack.document.text)
        self._variables = Variables(base.grammar, names, environ)
        self._issues: list[Issue] = []
        self._writer = Writer(self._variables)
        self._applied: Mapping[str, AppliedRecord] = {}
        self._targets: dict[str, Mapping[str, Any]] = {}
        """What each provider's snapshot is to be."""
        self._kept: dict[str, set[str]] = {}

    def run(self) -> Exported:
        if self._options.copied:
            self._copy()
        else:
            self._warn_of_secrets()
        wanted = self._of_applied() if self._options.applied else self._of_resolution()
        data = self._base.document.data
        patch = self._patch(wanted, data)
        text = edited(self._base.document.text, data, patch) if patch else self._base.document.text
        if self._options.copied:
            text = recommented(text, self._comment)
        for key in sorted(self._without_defaults):
            message = "what its class gives cannot all be written down, so none of it is"
            self._issues.append(Issue(message, level="warning", code="class-defaults", provider=key))
        used = set(_REFERENCE.findall(text))
        needed = tuple(each for each in self._variables.needed.values() if each.name in used)
        return Exported(text, tuple(self._writer.changes), needed, tuple(self._issues))

    # What is wanted

    def _of_resolution(self) -> dict[str, tuple[Provider, Wanted]]:
        overlays = self._manager.overlays(self._store.read().state)
        resolution = self._manager.resolve(overlays)
        errors = [issue for issue in resolution.errors if issue.code not in _OF_THE_MACHINE]
        if errors:
            count = len(errors)
            noun = "error" if count == 1 else "errors"
            raise InvalidConfig(
                f"nothing was exported: {count} {noun} in the configuration", resolution.issues
            )
        self._issues += [evolve(issue, level="warning") for issue in resolution.errors]
        for key, resolved in resolution.providers.items():
            if resolved.config is not None:  # those that are not managed stay as they stand
                self._targets[key] = snapshot(resolved, self._digest)
        if self._options.copied and self._is_own:
            resolution = self._again(resolution, overlays)
        found: dict[str, tuple[Provider, Wanted]] = {}
        for key, resolved in resolution.providers.items():
            if resolved.config is None:
                continue
            whole = self._options.whole and key not in self._without_defaults
            found[key] = (resolved.provider, of_resolution(resolved, whole=whole))
        return found

    def _again(self, resolution: Resolution, overlays: Mapping[str, Any]) -> Resolution:
        """The same stack on the text whose secrets have become references."""
        if self._base.document.text == self._manager.stack.document.text:
            return resolution
        return self._manager_of(self._base).resolve(overlays)

    def _of_applied(self) -> dict[str, tuple[Provider, Wanted]]:
        manager = self._manager_of(self._base) if self._is_own else self._manager
        resolution = manager.resolve_files()
        past = Past(manager, self._store, self._digest)
        found: dict[str, tuple[Provider, Wanted]] = {}
        self._applied = self._store.applied()
        if not self._applied:
            raise InvalidConfig("nothing was exported: nothing is applied")
        for key, record in self._applied.items():
            known = last_known(record)
            if known is None:
                self._warn(
                    key, "it joined, and nobody can say what it runs with; it is left out", "unknown-state"
                )
                continue
            if is_unknown(record):
                self._warn(
                    key, "nobody can say what it runs with; this is what was last known", "unknown-state"
                )
            resolved = resolution.providers.get(key)
            if resolved is not None and resolved.provider != record.provider:
                resolved = None
            whole = self._options.whole and key not in self._without_defaults
            then = past.then(record)
            wanted = of_snapshot(known, resolved, then, manager.stack, self._digest, whole=whole)
            for path, text in wanted.kept:
                self._kept.setdefault(key, set()).add(dotted(path))
                message = f"`{text}` stays, though what is applied is another value than it has here"
                self._warn(key, message, "kept-reference", f"config.{dotted(path)}")
            self._targets[key] = known
            found[key] = (record.provider, wanted)
        return found

    def _warn(self, key: str, message: str, code: str, path: str = "") -> None:
        self._issues.append(Issue(message, level="warning", code=code, provider=key, path=path))

    # The file

    def _patch(self, wanted: Mapping[str, tuple[Provider, Wanted]], data: Mapping[str, Any]) -> Patch:
        patch: Patch = {}
        entries = {entry.key: entry for entry in reversed(self._base.providers)}
        for key, (provider, wish) in wanted.items():
            entry = entries.get(key)
            if entry is None:
                self._add(patch, data, provider, wish)
            else:
                self._change(patch, data, entry, provider, wish)
        for key, entry in entries.items():
            if key not in wanted and not self._stays(key):
                _at(patch, entry.path[:-1])[entry.path[-1]] = DROP
                why = "was never applied" if self._options.applied else "is not in the stack"
                self._warn(key, f"it {why}; it is not in the export", "not-exported")
        return patch

    def _stays(self, key: str) -> bool:
        """Whether a provider of the file that nothing is wanted of stays as it stands: one that is
        not managed cannot have been applied.
        """
        if not self._options.applied:
            return key in self._manager.provider_keys()
        resolved = self._resolved_base.get(key)
        unmanaged = resolved is not None and resolved.owned is None
        return unmanaged and self._manager.skips_unknown

    def _change(
        self, patch: Patch, data: Any, entry: ProviderEntry, provider: Provider, wish: Wanted
    ) -> None:
        base: Mapping[str, Any] = entry.config
        if entry.provider_type != provider.provider_type:
            _at(patch, entry.path)["provider_type"] = Put(provider.provider_type)
            _at(patch, entry.path)["config"] = Put(self._writer.whole(provider, wish))
            return
        changes = self._writer.patch(provider, wish, base)
        if not changes:
            return
        raw = value_at(data, (*entry.path, "config"), None)
        if isinstance(raw, Mapping) and raw:
            _at(patch, entry.path)["config"] = changes
        else:
            _at(patch, entry.path)["config"] = Put(_whole(changes))

    def _add(self, patch: Patch, data: Mapping[str, Any], provider: Provider, wish: Wanted) -> None:
        if "providers" not in data and {"routing_table", "api_providers", "provider_map"} & data.keys():
            raise InvalidConfig(
                f"{self._base.name} has the form of October 2024, to which no provider can be added;"
                " write `providers:` first"
            )
        entry = {"provider_id": provider.provider_id, "provider_type": provider.provider_type}
        entry_with_config = {**entry, "config": self._writer.whole(provider, wish)}
        listed = value_at(data, ("providers", provider.api), None)
        if isinstance(listed, list):
            place = _at(patch, ("providers", provider.api))
            place[max([len(listed) - 1, *(int(at) for at in place)]) + 1] = Put(entry_with_config)
        else:
            providers = _at(patch, ("providers",))
            new = providers.get(provider.api)
            before = new.value if isinstance(new, Put) else []
            providers[provider.api] = Put([*before, entry_with_config])
        apis = data.get("apis")
        if isinstance(apis, list) and provider.api not in apis:
            place = _at(patch, ("apis",))
            if all(not isinstance(each, Put) or each.value != provider.api for each in place.values()):
                place[len(apis) + len(place)] = Put(provider.api)

    # Secrets of the file

    def _copy(self) -> None:
        """Go on with a text in which every literal secret has become a reference."""
        texts: dict[tuple[str | int, ...], str] = {}
        for scalar in self._scalars():
            new = self._safe(scalar)
            if new != scalar.text:
                texts[scalar.path] = new
        if not texts:
            return
        text = replaced_scalars(self._base.document.text, texts)
        self._base = loads(text, self._base.name, {**self._environ, **self._variables.values})

    def _safe(self, scalar: _Scalar) -> str:
        place = self._variables.place(scalar.provider, scalar.named, scalar.where)
        if scalar.secret:
            return place.secret(scalar.text, scalar.value)
        return place.plain(scalar.text)

    def _warn_of_secrets(self) -> None:
        aside = Variables(self._base.grammar, (), {})
        for scalar in self._scalars():
            place = aside.place(scalar.provider, scalar.named, scalar.where)
            safe = place.secret(scalar.text, None) if scalar.secret else place.plain(scalar.text)
            if safe != scalar.text:
                message = "a secret stands here in the clear, and is left as it is"
                self._issues.append(
                    Issue(
                        message,
                        level="warning",
                        code="literal-secret",
                        provider=scalar.provider,
                        path=scalar.where,
                        hint="write a reference, `${env.NAME}`",
                        where=self._base.document.position(scalar.path),
                    )
                )

    def _scalars(self) -> Iterator[_Scalar]:
        """Every text and every secret number of the file, each with what is known of it."""
        data = self._base.document.data
        entries = {entry.path: entry for entry in (*self._base.providers, *self._base.disabled)}
        for entry in entries.values():
            yield from self._scalars_of(entry)
        for path, value in _leaves(data, ()):
            if any(
                (*path[:length], "config") == path[: length + 1] and path[:length] in entries
                for length in (2, 3)
            ):
                continue
            secret = any(isinstance(part, str) and names_secret(part) for part in path)
            if _counts(value, secret=secret):
                yield _Scalar(path, path, dotted(path), "", str(value), str(value), secret)

    def _scalars_of(self, entry: ProviderEntry) -> Iterator[_Scalar]:
        """Those of one provider's config."""
        managed = self._resolved_base
        resolved = managed.get(entry.key) if not entry.disabled else None
        plan = resolved.plan if resolved is not None else None
        known: Any = canonical(entry.config, plan) if plan is not None else entry.config
        is_secret = secrecy(resolved.config if resolved is not None else None, plan, known)
        provider = "" if entry.disabled else entry.key
        start = (*entry.path, "config")
        for below, value in _leaves(value_at(self._base.document.data, start, {}), ()):
            if not below:
                continue
            first = plan.keys.get(str(below[0]), below[0]) if plan is not None else below[0]
            named = (first, *below[1:])
            secret = is_secret(named)
            if _counts(value, secret=secret):
                expanded = str(value_at(entry.config, below, value))
                where = f"config.{dotted(below)}" if provider else dotted((*start, *below))
                yield _Scalar((*start, *below), named, where, provider, str(value), expanded, secret)

    @cached_property
    def _resolved_base(self) -> Mapping[str, Resolved]:
        """The base's providers by its files alone."""
        return self._manager_of(self._base).resolve_files().providers

    def _comment(self, comment: str) -> str:
        """A comment without what looks like a secret in it."""
        text = scrubbed(comment, self._variables.values.values())

        def hide(match: re.Match[str]) -> str:
            if not names_secret(match["name"]) or _REFERENCE.match(match["value"]):
                return match[0]
            return match["head"] + REDACTED

        return redact_text(_ASSIGNMENT.sub(hide, text))

    # Faithfulness

    def unfaithful(self, text: str) -> dict[str, tuple[Issue, ...]]:
        """The providers that the text would make other ones, with what differs."""
        values = {name: "set" for name in self._variables.needed if name not in self._environ}
        environ = {**_set(text), **values, **self._environ, **self._variables.values}
        file = loads(text, self._base.name, environ)
        providers = self._manager_of(file).resolve_files().providers
        wrong: dict[str, tuple[Issue, ...]] = {}
        for key, target in self._targets.items():
            resolved = providers.get(key)
            issues = tuple(self._differing(key, target, resolved))
            if issues:
                wrong[key] = issues
        return wrong

    def _differing(self, key: str, target: Mapping[str, Any], resolved: Resolved | None) -> Iterator[Issue]:
        if resolved is None or resolved.config is None:
            issues = [issue for issue in resolved.issues if issue.level == "error"] if resolved else []
            issues = issues or [
                Issue("the exported file is not valid here", code="unfaithful-export", provider=key)
            ]
            for issue in issues:
                yield evolve(issue, level="warning") if self._options.applied else issue
            return
        now = snapshot(resolved, self._digest)
        for path in changed_paths(target, now):
            if dotted(path) in self._kept.get(key, ()) or self._is_secret_unknown(target, path):
                continue
            message = "the exported file would give another value here"
            level: Level = "warning" if self._options.applied else "error"
            yield Issue(message, level, f"config.{dotted(path)}", code="unfaithful-export", provider=key)

    def _is_secret_unknown(self, target: Mapping[str, Any], path: Path) -> bool:
        """A secret that only its digest is known of cannot be compared."""
        return self._options.applied and "$secret" in str(value_at(target, path))

    def _manager_of(self, file: StackFile) -> Manager:
        if file is self._manager.stack:
            return self._manager
        manager = self._manager
        other = Manager(file, manager.registry, hardware=manager.hardware, skip_unknown=manager.skips_unknown)
        other.opener = manager.opener
        return other


@frozen
class _Scalar:
    """One scalar of the file: its path there, the path by which it is named and shown, its text as it
    stands there, and what that comes to.
    """

    path: Path
    named: Path
    where: str
    provider: str
    text: str = field(repr=False)
    value: str = field(repr=False)
    secret: bool


def _leaves(data: Any, above: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, (*above, key))
    elif isinstance(data, list):
        for at, value in enumerate(data):
            yield from _leaves(value, (*above, at))
    else:
        yield above, data


def _counts(value: Any, *, secret: bool) -> bool:
    """Whether a scalar may have to be written otherwise."""
    if value is None or value == "" or isinstance(value, bool):
        return False
    return secret or isinstance(value, str)


def _at(patch: Patch, path: Path) -> Patch:
    """The part of a patch that is about a path, made where there is none."""
    for step in path:
        below = patch.setdefault(step, {})
        assert isinstance(below, dict)  # noqa: S101 (nothing else is put above)
        patch = below
    return patch


def _whole(changes: Patch) -> dict[str, Any]:
    return {str(key): change.value for key, change in changes.items() if isinstance(change, Put)}


def _set(text: str) -> dict[str, str]:
    """What this process has of the variables that a text refers to."""
    import os

    return {name: os.environ[name] for name in _REFERENCE.findall(text) if name in os.environ}


def _not_same(wrong: Mapping[str, tuple[Issue, ...]]) -> tuple[Issue, ...]:
    return tuple(issue for issues in wrong.values() for issue in issues)
