"""A configuration on its way in: what of it counts, checked against the stack, its secrets sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from attrs import evolve

from stackconf.errors import InvalidConfig, SecretError
from stackconf.manager import missing_type
from stackconf.redact import passwords_in
from stackconf.resolve.blame import dropped_issues, in_order, undotted
from stackconf.resolve.layers import Path, dotted, merge, value_at
from stackconf.resolve.projection import holds_redacted, project, without_shown
from stackconf.resolve.references import (
    is_reference,
    looks_like_reference,
    replaced,
    scalars,
    sealed_id,
    sealed_reference,
    secret_top,
)
from stackconf.resolve.render import SHOWN
from stackconf.resolve.resolve import Overlay, Resolved, TakenOverlay
from stackconf.suggest import did_you_mean, known
from stackconf.types import Issue

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan
    from stackconf.given import Entry, Given
    from stackconf.manager import Manager, Overlays
    from stackconf.sealing import SealedSecret
    from stackconf.store.base import Configuration, State
    from stackconf.types import Provider
    from stackconf.vault import Vault

_HOW_REFERENCES_LOOK = (
    "write `${env.NAME}`, in capitals, or `${file:/run/secrets/name}`, and nothing before it or after it"
)
_USE_A_FILE = "give it in a file, on standard input, or as a reference to where it is"
_USE_A_REFERENCE = "give a reference, `${env.NAME}` or `${file:/run/secrets/name}`"


class Draft:
    """A configuration on its way in: projected, checked against the stack, nothing written yet."""

    def __init__(
        self,
        manager: Manager,
        vault: Vault,
        name: str,
        given: Given,
        state: State,
        *,
        done: str = "registered",
        seal: bool,
    ) -> None:
        self._manager = manager
        self._vault = vault
        self._name = name
        self._given = given
        self._refusal = f"the configuration was not {done}"
        self._may_seal = seal
        self._why_not_sealed = (
            ("a shipped configuration has a secret in the clear", "register it under another name")
            if done == "assigned"
            else ("a secret is not taken from a command line, where others see it", _USE_A_FILE)
        )
        self.errors: list[Issue] = []
        self.warnings: list[Issue] = []
        self._dropped: list[Issue] = []
        self._kept: list[tuple[Entry, Mapping[str, Any]]] = []
        self._sent_back: dict[str, list[Path]] = {}
        """For each provider, the paths of redacted values that stand for what is there."""
        self._effective: dict[str, tuple[tuple[Overlay, ...], Resolved]] = {}
        self._literals: dict[str, list[Path]] = {}
        """For each provider, the paths of the secrets that are given in the clear."""
        self._fresh: dict[tuple[str, Path], tuple[str, SealedSecret]] = {}
        self.sealed: dict[str, SealedSecret] = {}
        """The secrets to store, by id, for what `with_kept_secrets` gave last."""
        self._overlays = manager.overlays(state)
        for entry in given.entries:
            self._take(entry)

    @property
    def dropped(self) -> tuple[Issue, ...]:
        """What is not taken, path by path."""
        return tuple(self._dropped)

    def refuse_errors(self) -> None:
        """Raise `InvalidConfig` when something is wrong, or nothing is left."""
        if self.errors:
            raise InvalidConfig(self._refusal, (*self.errors, *self._dropped))
        if not any(values for _, values in self._kept) and not any(self._sent_back.values()):
            message = "nothing to register: it sets no user field of the stack"
            raise InvalidConfig(message, (Issue(message, code="nothing-kept"), *self._dropped))

    def with_kept_secrets(self, state: State, head: State | None = None) -> dict[str, list[dict[str, Any]]]:
        """What is stored. A redacted value sent back keeps what the same configuration had there, and
        a secret given in the clear is sealed, unless it is the one that is there, or at the head.
        """
        before = state.configurations.get(self._name)
        newest = None if head is None else head.configurations.get(self._name)
        stored: dict[str, list[dict[str, Any]]] = {}
        self.sealed.clear()
        for entry, values in self._kept:
            provider = self._manager.provider(entry.key)
            old = _config_in(before, entry) if before else {}
            kept = values
            for path in self._sent_back[entry.key]:
                given = value_at(old, path)
                if given is not None:
                    kept = merge(_nested(path, given), kept)
            self._refuse_strangers(entry, kept, old)
            kept = self._with_sealed(entry, kept, old, _config_in(newest, entry) if newest else {})
            if kept:
                stored.setdefault(entry.api, []).append(
                    {
                        "provider_id": entry.provider_id,
                        "provider_type": provider.provider_type if provider else entry.provider_type,
                        "config": kept,
                    }
                )
        if self.errors:
            raise InvalidConfig(self._refusal, (*self.errors, *self._dropped))
        return stored

    def _with_sealed(
        self, entry: Entry, kept: Mapping[str, Any], *places: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The values with a reference in place of each secret that was given in the clear."""
        vault = self._vault
        for path in self._literals.get(entry.key, ()):
            value = value_at(kept, path)
            found = (value_at(each, path) for each in places)
            there = next((each for each in found if vault.holds(each, value, entry.key, path)), None)
            if there is None:
                if (entry.key, path) not in self._fresh:
                    self._fresh[entry.key, path] = vault.seal(value, entry.key, path)
                identity, sealed = self._fresh[entry.key, path]
                self.sealed[identity] = sealed
                there = sealed_reference(identity)
            kept = replaced(kept, path, there)
        return kept

    def _refuse_strangers(self, entry: Entry, kept: Mapping[str, Any], old: Mapping[str, Any]) -> None:
        """A reference to a sealed secret counts only where it was made."""
        for path, value in scalars(kept):
            if sealed_id(value) and value_at(old, path) != value:
                problem = f"this sealed secret is not the one that `{self._name}` has here"
                self._refuse(entry, problem, "give the secret itself, or a reference to where it is", path)

    def check(self, old_state: State, new_state: State) -> None:
        """Resolve the touched providers under the new state; nothing counts that could not be
        validated, so one that is wrong for another reason refuses it as well.
        """
        manager = self._manager
        before, after = manager.overlays(old_state), manager.overlays(new_state)
        errors: list[Issue] = []
        self.warnings = []
        fresh: dict[str, Resolved] = {}
        for entry, _ in self._kept:
            old = set(map(str, self._now(entry.key, before).issues))
            with self._vault.arriving(self.sealed):
                resolved = manager.resolve_one(entry.key, after.get(entry.key, ()), after)
            fresh[entry.key] = resolved
            new = (*self._of_file(entry), *resolved.issues)
            placed = [(self._placed(_tolerated(issue), entry), str(issue) in old) for issue in new]
            errors += [issue for issue, _ in placed if issue.level == "error"]
            self.warnings += [issue for issue, known in placed if issue.level == "warning" and not known]
        if not errors:
            with self._vault.arriving(self.sealed):
                found = self._of_followers(before, after, fresh)
                if manager.asks_for_others():
                    found += self._disagreements(before, after, fresh)
            errors += [issue for issue in found if issue.level == "error"]
            self.warnings += [issue for issue in found if issue.level == "warning"]
        if errors:
            raise InvalidConfig(self._refusal, (*in_order(errors), *self._dropped))

    def _of_followers(self, before: Overlays, after: Overlays, fresh: dict[str, Resolved]) -> list[Issue]:
        """What is wrong under the new state, and was not before it, with providers whose defaults are
        derived from those that the draft is for.
        """
        found: list[Issue] = []
        for key in self._manager.followers(fresh):
            if key not in fresh:
                old = set(map(str, self._now(key, before).issues))
                fresh[key] = self._manager.at_hand(key, after.get(key, ()), after)
                found += [issue for issue in fresh[key].issues if str(issue) not in old]
        return found

    def _disagreements(self, before: Overlays, after: Overlays, fresh: Mapping[str, Resolved]) -> list[Issue]:
        """What is wrong between providers under the new state and was not before it."""
        manager = self._manager
        keys = manager.provider_keys()
        old = {key: self._now(key, before) for key in keys}
        new = {key: fresh.get(key) or manager.at_hand(key, after.get(key, ()), after) for key in keys}
        told = set(map(str, manager.disagreements(old)))
        entries = {entry.key: entry for entry, _ in self._kept}
        return [
            self._placed(issue, entries[issue.provider]) if issue.provider in entries else issue
            for issue in manager.disagreements(new)
            if str(issue) not in told
        ]

    def _now(self, key: str, before: Overlays) -> Resolved:
        """A provider as it is without the draft, resolved again only if somebody changed it since."""
        overlays = before.get(key, ())
        found = self._effective.get(key)
        if found is not None and found[0] == overlays:
            return found[1]
        return self._manager.at_hand(key, overlays, before)

    def _of_file(self, entry: Entry) -> list[Issue]:
        """What the stack file says wrong about a provider; it cannot be resolved for that."""
        issues = self._manager.stack.issues
        return [issue for issue in issues if issue.provider == entry.key and issue.level == "error"]

    def _take(self, entry: Entry) -> None:
        manager = self._manager
        provider = manager.provider(entry.key)
        if provider is None:
            self._refuse(entry, *self._no_provider(entry))
            return
        if entry.provider_type and entry.provider_type != provider.provider_type:
            problem = (
                f"the stack's `{provider.key}` is `{provider.provider_type}`, not `{entry.provider_type}`"
            )
            self._refuse(entry, problem, "a configuration cannot change a provider's type")
            return
        missing = missing_type(manager.registry, provider)
        if missing is not None:
            self._refuse(entry, getattr(missing, "message", str(missing)), getattr(missing, "hint", ""))
            return
        self._project(entry, provider)

    def _project(self, entry: Entry, provider: Provider) -> None:
        manager = self._manager
        assigned = self._overlays.get(entry.key, ())
        below = tuple(takewhile(lambda overlay: overlay.name != self._name, assigned))
        around = self._overlays
        resolved = manager.at_hand(entry.key, below, around)
        effective = manager.at_hand(entry.key, assigned, around) if below != assigned else resolved
        self._effective[entry.key] = (assigned, effective)
        plan = resolved.plan
        if plan is None:
            self._refuse(entry, resolved.issues[0].message, resolved.issues[0].hint)
            return
        config: Mapping[str, Any] = entry.config
        self._sent_back[entry.key] = []
        if holds_redacted(config):
            shown = {} if effective.config is None else SHOWN.render(effective.config)
            config, self._sent_back[entry.key] = without_shown(config, shown, plan)
        kept, dropped = project(config, plan, resolved.merged)
        taken = TakenOverlay(Overlay(self._name, 0, config), kept, tuple(dropped))
        for issue, each in zip(dropped_issues(provider, taken, plan), dropped, strict=True):
            self._dropped.append(evolve(issue, where=self._given.where(entry, each.path)))
        self._check_secrets(entry, kept, plan)
        self._kept.append((entry, kept))

    def _check_secrets(self, entry: Entry, kept: Mapping[str, Any], plan: ClassPlan) -> None:
        for path, value in scalars(kept):
            if value is None or value == "" or isinstance(value, bool):
                continue
            top = secret_top(path, kept, plan)
            if top is not None:
                self._check_secret(entry, path, value, top)
            elif looks_like_reference(value):
                self._refuse(entry, "a reference is resolved only in a secret field", "give the value", path)
            elif isinstance(value, str) and passwords_in(value):
                self._refuse(entry, "a password is not stored in the clear", "leave it out of the URL", path)

    def _check_secret(self, entry: Entry, path: Path, value: object, top: Path) -> None:
        if is_reference(value):
            return
        if looks_like_reference(value):
            problem = "a secret is not stored in the clear, and this is no reference"
            self._refuse(entry, problem, _HOW_REFERENCES_LOOK, top)
            return
        try:
            self._vault.check()
            if self._may_seal:
                self._literals.setdefault(entry.key, []).append(path)
                return
            problem, hint = self._why_not_sealed
            self._refuse(entry, problem, hint, top)
        except SecretError as error:
            problem = f"a secret is not stored in the clear, and {error.problem}"
            self._refuse(entry, problem, f"{_USE_A_REFERENCE}; or to have it encrypted: {error.hint}", top)

    def _no_provider(self, entry: Entry) -> tuple[str, str]:
        keys = self._manager.provider_keys()
        disabled = {f"{each.api}/{each.provider_type}" for each in self._manager.stack.disabled}
        if f"{entry.api}/{entry.provider_type}" in disabled:
            return "the provider is disabled in the stack file", "enable it there"
        apis = {key.split("/", 1)[0] for key in keys}
        if entry.api not in apis:
            hint = did_you_mean(entry.api, apis)
            return f"no provider of api `{entry.api}` in the stack", hint or known(sorted(keys))
        same = [key for key in keys if key.startswith(f"{entry.api}/")]
        return "no such provider in the stack", did_you_mean(entry.key, keys) or known(same)

    def _refuse(self, entry: Entry, message: str, hint: str = "", path: tuple[str | int, ...] = ()) -> None:
        where = self._given.document.position(entry.path) if self._given.document else None
        self.errors.append(
            Issue(
                message,
                hint=hint,
                path=f"config.{dotted(path)}" if path else "",
                provider=entry.key,
                code="not-registrable",
                where=self._given.where(entry, path) if path else where,
            )
        )

    def _placed(self, issue: Issue, entry: Entry) -> Issue:
        if issue.where is not None or not issue.path.startswith("config."):
            return issue
        path = undotted(issue.path.removeprefix("config."))
        return evolve(issue, where=self._given.where(entry, path))


def _tolerated(issue: Issue) -> Issue:
    """A reference is resolved by the machine that applies it, which need not be this one."""
    return evolve(issue, level="warning") if issue.code == "missing-secret" else issue


def _config_in(configuration: Configuration, entry: Entry) -> Mapping[str, Any]:
    for each in configuration.providers.get(entry.api, ()):
        if each["provider_id"] == entry.provider_id:
            config: Mapping[str, Any] = each["config"]
            return config
    return {}


def _nested(path: Sequence[str | int], value: Any) -> dict[str, Any]:
    for step in reversed(path):
        value = {step: value}
    nested: dict[str, Any] = value
    return nested
