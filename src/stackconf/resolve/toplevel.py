"""What a class says about the top level of a stack file, in the words of the provider configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from stackconf.fields import labels_at, plan_of
from stackconf.resolve.layers import dotted, value_at
from stackconf.resolve.references import settle_layer
from stackconf.resolve.violations import violations
from stackconf.suggest import did_you_mean
from stackconf.types import Issue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    from stackconf.fields import ClassPlan
    from stackconf.resolve.layers import Data, Path
    from stackconf.resolve.references import Unknown
    from stackconf.resolve.violations import Violation
    from stackconf.stackfile.model import StackFile
    from stackconf.types import Position


def file_issues(stack: StackFile, data: Mapping[str, object], config_class: type[BaseModel]) -> list[Issue]:
    """What a pydantic class refuses of a stack file's top level: one issue for each wrong value,
    missing key and unknown key, with its place. For runtimes whose files have a class of their own.

    `data` is what the file says, as plain dictionaries and lists with references expanded; a top-level
    key that is not in it is not judged.

    >>> from pydantic import create_model
    >>> from stackconf.stackfile.model import loads
    >>> Server = create_model("Server", port=(int, 8321))
    >>> File = create_model("File", server=(Server, ...))
    >>> stack = loads("server: {prot: 1, port: x}", "run.yaml", {})
    >>> for issue in file_issues(stack, stack.other, File):
    ...     print(issue)
    run.yaml:1:10: error: server.prot: unknown key; did you mean `port`?
    run.yaml:1:25: error: server.port: should be a whole number, not 'x'
    """
    plan = plan_of(config_class)
    unknown: Unknown = []
    settled = settle_layer(data, plan, unknown)
    issues = [_unknown_key(stack, path, where) for path, where in unknown]
    issues += _refused(stack, settled, plan, {path for path, _ in unknown})
    return sorted(issues, key=lambda issue: (issue.where is None, issue.where and issue.where.line))


def _refused(stack: StackFile, data: Data, plan: ClassPlan, unknown: set[Path]) -> Iterator[Issue]:
    try:
        plan.config_class.model_validate(data)
    except ValidationError as error:
        for each in violations(error.errors(include_url=False), data, plan):
            if each.path not in unknown:
                yield _issue(stack, each, plan, data)


def _issue(stack: StackFile, violation: Violation, plan: ClassPlan, data: Data) -> Issue:
    path = violation.path
    if violation.kind == "missing":
        message, code, hint = "required key is missing", "missing-field", f"add `{path[-1]}`"
        where = stack.document.nearest(path[:-1])
    else:
        message = violation.message(secret=labels_at(plan, path, data).secret)
        code, where = "wrong-value", stack.document.nearest(path)
        hint = violation.hint or ("put it in quotes" if violation.about_text else "")
    return Issue(message, path=dotted(path), hint=hint, code=code, where=where)


def _unknown_key(stack: StackFile, path: Path, plan: ClassPlan) -> Issue:
    keys = ", ".join(f"`{each}`" for each in sorted(plan.fields))
    hint = did_you_mean(str(path[-1]), plan.keys) or f"the keys are {keys}"
    where = _key_position(stack, path)
    return Issue("unknown key", path=dotted(path), hint=hint, code="unknown-key", where=where)


def _key_position(stack: StackFile, path: Path) -> Position | None:
    if value_at(stack.document.data, path, None) is None:
        return stack.document.nearest(path)
    return stack.document.position(path, key=True) or stack.document.nearest(path)
