"""Whose fault is it: validation errors become issues that name the layer, the place and the cure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import evolve, frozen
from pydantic import ValidationError

from stackconf.fields import ClassPlan, labels_at, user_paths
from stackconf.redact import passwords_in, scrubbed
from stackconf.resolve.layers import Data, Path, dotted, leaves, merge, over_class_defaults, value_at
from stackconf.resolve.render import secrets_in
from stackconf.resolve.violations import Violation, forbidden, members_at, violations
from stackconf.stackfile.env import EnvText
from stackconf.suggest import closest, did_you_mean
from stackconf.types import Issue

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.registry.registry import Owned
    from stackconf.resolve.references import Unknown
    from stackconf.resolve.resolve import TakenOverlay
    from stackconf.stackfile.model import ProviderEntry, StackFile
    from stackconf.types import Position, Provider

PLUGIN_DEFECT = "this is a defect of the plugin, not of your files"

Culprit: TypeAlias = "Literal['hardware', 'stack'] | TakenOverlay"

_NOTHING: Any = object()
_LONGEST_INDEX = 9

_SAID_BY = {"env-lookalike": "wrong-value", "key-not-text": "unknown-field"}
"""What a remark of the file explains: the error that follows from it at the same place."""


@frozen(eq=False)
class Blame:
    """One provider's layers, ready to say which of them brought a value."""

    provider: Provider
    plan: ClassPlan
    owned: Owned
    hardware_values: Data
    stack_values: Data
    overlays: tuple[TakenOverlay, ...]
    entry: ProviderEntry | None
    stack: StackFile | None
    unknown: Unknown
    """The stack file's keys that no field knows, which are told apart."""

    def of(self, error: ValidationError, merged: Data) -> list[Issue]:
        """The issues of a failed validation, one for each path."""
        details = error.errors(include_url=False)
        found = list(violations(details, merged, self.plan))
        issues: list[Issue] = []
        for each in found:
            if not self._already_said(each):
                issues += self._misspelt_in(each, merged) or [self._issue(each)]
        if not found and not self.unknown:
            issues = [self._unknown(path) for path in forbidden(details, merged, self.plan)]
        return self.scrubbed(issues)

    def completed(self, issues: Iterable[Issue], config: BaseModel) -> list[Issue]:
        """A plugin's issues with the provider and the place they lack, and without its secrets."""
        completed = map(self._completed, issues)
        return self.scrubbed((each for each in completed if not self._is_of_failed(each)), config)

    def scrubbed(self, issues: Iterable[Issue], config: BaseModel | None = None) -> list[Issue]:
        """The issues without any secret of this provider in their words."""
        secrets = self.secrets(config)
        return [
            evolve(each, message=scrubbed(each.message, secrets), hint=scrubbed(each.hint, secrets))
            for each in issues
        ]

    def where(self, path: Path, *, key: bool = False) -> Position | None:
        """Where the stack file says it: the value, or the nearest thing above it."""
        if self.stack is None or self.entry is None or self._overlay_of(path) is not None:
            return None
        return self._in_file(path, key=key)

    def _in_file(self, path: Path, *, key: bool = False) -> Position | None:
        if self.stack is None or self.entry is None:
            return None
        root = (*self.entry.path, "config")
        for length in range(len(path), 0, -1):
            for name in self.plan.aliases_of(str(path[0])):
                position = self.stack.document.position((*root, name, *path[1:length]), key=key)
                if position is not None:
                    return position
        return self.stack.document.position(self.entry.path)

    def _is_of_failed(self, issue: Issue) -> bool:
        """Whether it is about a reference that could not be expanded, which the file's issues tell."""
        path = undotted(issue.path.removeprefix("config").removeprefix("."))
        given = value_at(self.stack_values, path) if path else None
        return isinstance(given, EnvText) and given.failed and self._overlay_of(path) is None

    def _completed(self, issue: Issue) -> Issue:
        path = issue.path
        if path and path != "config" and not path.startswith("config."):
            path = f"config.{path}"
        where = issue.where or self.where(undotted(path.removeprefix("config").removeprefix(".")))
        return evolve(issue, provider=self.provider.key, path=path, where=where)

    def secrets(self, config: BaseModel | None = None) -> set[str]:
        """Every secret text of the configuration, and of the layers by the labels of the class and by
        URL.
        """
        found: set[str] = {*secrets_in(config)}
        for layer in (self.hardware_values, self.stack_values, *(each.values for each in self.overlays)):
            for path, value in leaves(layer):
                inner = value if isinstance(value, list) else [value]
                texts = [str(each) for each in inner if each is not None and not isinstance(each, bool)]
                secret = bool(path) and labels_at(self.plan, path, layer).secret
                for text in texts:
                    found.update([text] if secret else passwords_in(text))
        return found

    def _already_said(self, violation: Violation) -> bool:
        """Whether another issue covers it: the value's reference could not be expanded, the missing
        field is there, misspelt, or a mapping is refused as a whole for want of what is misspelt in it.
        """
        path = violation.path
        given = value_at(self.stack_values, path)
        if isinstance(given, EnvText) and given.failed and self._overlay_of(path) is None:
            return True
        meant = {
            (*each[:-1], plan.name_of(closest(str(each[-1]), plan.keys) or "")) for each, plan in self.unknown
        }
        if violation.kind == "missing":
            return path in meant
        return any(each[:-1] == path and each[-1] is not None for each in meant)

    def _misspelt_in(self, violation: Violation, merged: Data) -> list[Issue]:
        """The keys of a refused mapping that no member of its union has, and that are surely a key
        of one of them, misspelt: that is then why the member could not be told.
        """
        members = members_at(self.plan, violation.path, merged)
        if len(members) < 2 or not isinstance(violation.given, Mapping):  # noqa: PLR2004 (no union)
            return []
        known = {key for member in members for key in member.keys}
        strange = [key for key in violation.given if key not in known]
        meant = [(key, closest(str(key), sorted(known))) for key in strange]
        return [
            self._unknown((*violation.path, key), f"did you mean `{near}`?") for key, near in meant if near
        ]

    def _overlay_of(self, path: Path) -> TakenOverlay | None:
        if not path:
            return self.overlays[-1] if self.overlays else None
        for taken in reversed(self.overlays):
            if value_at(taken.values, path, _NOTHING) is not _NOTHING:
                return taken
        return None

    def _issue(self, violation: Violation) -> Issue:
        path = violation.path
        secret = labels_at(self.plan, path, self.stack_values).secret
        missing = violation.kind == "missing"
        message = "required field is missing" if missing else violation.message(secret=secret)
        culprit = self._culprit(violation)
        if culprit == "hardware":
            failure = self.owned.hooks.owner.failed("default_config", f"gave a bad value: {message}")
            issue = Issue(str(failure), path=_config(path), code="hook-error", hint=PLUGIN_DEFECT)
            return evolve(issue, provider=self.provider.key)
        if missing:
            hint, code = self._how_to_add(path), "missing-field"
        else:
            hint, code = violation.hint or self._cure(violation, secret=secret), "wrong-value"
        issue = Issue(message, path=_config(path), hint=hint, code=code, provider=self.provider.key)
        return self._given_by(issue, path, culprit)

    def _given_by(self, issue: Issue, path: Path, culprit: Culprit, *, key: bool = False) -> Issue:
        """The issue with whoever brought the value: a configuration, or a place in the stack file."""
        if not isinstance(culprit, str):
            return evolve(issue, message=f"{issue.message}; given by configuration `{culprit.overlay.name}`")
        if issue.code == "missing-field":
            if self.stack is None or self.entry is None:
                return issue
            return evolve(issue, where=self.stack.position_of(self.entry, path[:-1]))
        given = value_at(self.stack_values, path, _NOTHING)
        about = f" (from {given.shown})" if isinstance(given, EnvText) else ""
        about += " (the type's own default)" if path and given is _NOTHING else ""
        return evolve(issue, message=issue.message + about, where=self._in_file(path, key=key))

    def _unknown(self, path: Path, hint: str = "remove it") -> Issue:
        culprit: Culprit = self._overlay_of(path) or "stack"
        issue = Issue("unknown field", path=_config(path), hint=hint, code="unknown-field")
        return self._given_by(evolve(issue, provider=self.provider.key), path, culprit, key=True)

    def _how_to_add(self, path: Path) -> str:
        field = self.plan.fields.get(str(path[0])) if len(path) == 1 else None
        about = f": {field.description.rstrip('.')}" if field and field.description else ""
        return f"add `{path[-1]}`{about}" if path else ""

    def _culprit(self, violation: Violation) -> Culprit:
        """The layer that brought what is refused. For a value, the highest that gives it; for what is
        missing, and for mappings that are wrong as a whole, the one without which it would be right.
        """
        path = violation.path
        if violation.kind != "missing" and path and not isinstance(violation.given, Mapping):
            return self._overlay_of(path) or ("hardware" if self._from_hardware(path) else "stack")
        layers: list[tuple[Culprit, Data]] = [
            ("hardware", self.hardware_values),
            ("stack", self.stack_values),
            *((taken, taken.values) for taken in self.overlays),
        ]
        while layers:
            name, _ = layers.pop()
            if not self._violates([values for _, values in layers], violation):
                return name
        return "stack"

    def _violates(self, layers: Iterable[Data], violation: Violation) -> bool:
        merged: Data = {}
        for values in layers:
            merged = merge(merged, values, self.plan)
        merged = over_class_defaults(merged, self.plan)
        try:
            self.owned.config_class.model_validate(merged, by_alias=True, by_name=True)
        except ValidationError as error:
            found = violations(error.errors(include_url=False), merged, self.plan)
            return any((each.kind, each.path) == (violation.kind, violation.path) for each in found)
        except Exception:  # noqa: BLE001 (a plugin's validator; then the upper layer is not to blame)
            return True
        return False

    def _from_hardware(self, path: Path) -> bool:
        in_stack = value_at(self.stack_values, path, _NOTHING) is not _NOTHING
        return not in_stack and value_at(self.hardware_values, path, _NOTHING) is not _NOTHING

    def _cure(self, violation: Violation, *, secret: bool) -> str:
        """What to do about a value of the stack file, where that can be told from the value."""
        path = violation.path
        if self._overlay_of(path) is not None or self.stack is None or self.entry is None:
            return ""
        given = value_at(self.stack_values, path, _NOTHING)
        if isinstance(given, EnvText) and not given:
            return f"set `{given.names[0]}`, or give a default"
        if given is None:
            field = self.plan.fields.get(str(path[0])) if len(path) == 1 else None
            return "give a value" + (
                "" if field and field.required else ", or remove the line to have the default"
            )
        if not violation.about_text:
            return ""
        raw = self.stack.document.raw_text((*self.entry.path, "config", *path))
        if raw is None:
            return "put it in quotes if it is text"
        return "put it in quotes to keep it text" if secret else f'write it in quotes: "{raw}"'


def unknown_field_issues(blame: Blame, unknown: Unknown) -> list[Issue]:
    """An error for each key of the stack file that its class does not know, even where the class
    ignores extras.
    """
    issues = []
    for path, plan in unknown:
        key = str(path[-1])
        twice = plan.name_of(key)
        hint = "give one of the two" if twice else did_you_mean(key, plan.keys) or _known_fields(plan)
        where = blame.where(path, key=True)
        issues.append(
            Issue(
                f"the same field as `{twice}`" if twice else "unknown field",
                path=_config(path),
                hint=hint,
                code="unknown-field",
                provider=blame.provider.key,
                where=where,
            )
        )
    return issues


def dropped_issues(provider: Provider, taken: TakenOverlay, plan: ClassPlan) -> list[Issue]:
    """What was dropped from an overlay, said path by path."""
    issues = []
    for dropped in taken.dropped:
        key = str(dropped.path[-1])
        if dropped.code == "unknown-field":
            hint = did_you_mean(key, plan.keys) or _user_fields(plan)
        else:
            hint = _user_fields(plan)
        issues.append(
            Issue(
                f"dropped: {dropped.reason}",
                level="ignored",
                path=_config(dropped.path),
                hint=hint,
                code=dropped.code,
                provider=provider.key,
            )
        )
    return issues


def in_order(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    """The issues in the order of the file, then those without a place; each mistake told once.

    Where a remark about the text (a shell's variable, a key that is no text) explains an error at
    the same place, the remark stands alone, as the error.
    """
    listed = sorted(issues, key=_place)
    causes = {
        (str(issue.where), _SAID_BY[issue.code]): number
        for number, issue in enumerate(listed)
        if issue.code in _SAID_BY and issue.where is not None
    }
    if not causes:
        return tuple(listed)
    told: list[Issue | None] = [*listed]
    for number, issue in enumerate(listed):
        cause = causes.get((str(issue.where), issue.code))
        if cause is not None:
            told[number], told[cause] = None, evolve(listed[cause], level="error")
    return tuple(issue for issue in told if issue is not None)


def _config(path: Path) -> str:
    return f"config.{dotted(path)}" if path else "config"


def undotted(text: str) -> Path:
    """The path that `dotted` made the text of, as far as one can tell.

    >>> undotted("kvstore.hosts[0].port")
    ('kvstore', 'hosts', 0, 'port')
    """
    return tuple(
        int(part) if part.isascii() and part.isdigit() and len(part) <= _LONGEST_INDEX else part
        for part in text.replace("[", ".").replace("]", "").split(".")
        if part
    )


def _known_fields(plan: ClassPlan) -> str:
    return f"the fields are {_listed(sorted(plan.fields))}" if plan.fields else "the type has no fields"


def _user_fields(plan: ClassPlan) -> str:
    paths = user_paths(plan)
    return f"users may set {_listed(paths)}" if paths else "the type has no user fields"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _place(issue: Issue) -> tuple[bool, int, int]:
    where = issue.where
    return (where is None, where.line if where else 0, where.column if where else 0)
