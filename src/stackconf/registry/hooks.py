"""pluggy, addressed: one small plugin manager for each owner of provider types.

An owner's manager holds the owner and the cross-cutting plugins, so a call reaches nobody else
and its cost does not grow with the number of types. Ordering, wrappers and tracing are pluggy's.
Every failure is turned into a `HookError` that names the plugin.
"""

from __future__ import annotations

import inspect
import re
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import pluggy
from attrs import evolve, field, frozen

from stackconf import hookspecs
from stackconf.errors import HookError, PluginLoadError
from stackconf.redact import described
from stackconf.suggest import did_you_mean
from stackconf.types import Applied, Issue, Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from pydantic import BaseModel

    from stackconf.hardware.facts import Hardware
    from stackconf.types import Provider, ProviderType

HOOKS = ("discover_hardware", "default_config", "validate_user_config", "apply_config")
PROVIDER_HOOKS = HOOKS[1:]
_ARGUMENTS = re.compile(
    r"for hook '(?P<hook>\w+)'.*Argument\(s\) \{(?P<names>[^}]*)\} are declared", re.DOTALL
)
_SPECS = type("Hooks", (), {name: staticmethod(getattr(hookspecs, name)) for name in PROVIDER_HOOKS})
_LEVELS = get_args(Level)
_MOST_ISSUES = 1000
"""What one plugin may say about one provider; a hook may yield without end."""
_MARK = f"{hookspecs.PROJECT}_impl"
_SPEC_MARK = f"{hookspecs.PROJECT}_spec"


@frozen(eq=False)
class Plugin:
    """A loaded plugin and where it came from."""

    name: str
    implementation: object
    distribution: str = ""
    version: str = ""
    provides: tuple[ProviderType, ...] = ()
    alias: str = ""
    """What people know it by, where that is not its distribution."""
    kinds: Mapping[str, ProviderType] = field(init=False, repr=False)
    """What it provides, by key."""

    @kinds.default
    def _kinds_by_key(self) -> Mapping[str, ProviderType]:
        return {kind.key: kind for kind in self.provides}

    @property
    def label(self) -> str:
        """What people know it by: the distribution and its version, or the plugin's own name."""
        return self.alias or f"{self.distribution} {self.version}".strip() or self.name

    def failed(self, hook: str, problem: str, provider: str = "") -> HookError:
        """A `HookError` that blames this plugin."""
        return HookError(
            hook,
            self.name,
            problem,
            distribution=self.distribution,
            version=self.version,
            provider=provider,
        )


class HookManager(pluggy.PluginManager):
    """A plugin manager that looks only at what can be a hook, and says early what cannot work."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.monitored = False
        self.add_hookspecs(_SPECS)

    def add_hookcall_monitoring(self, before: Any, after: Any) -> Callable[[], None]:
        """As in pluggy, and remembered: from now on every call goes through pluggy."""
        self.monitored = True
        return super().add_hookcall_monitoring(before, after)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        """The options of a hook specification: our own functions, so nothing has to be looked at twice."""
        return getattr(getattr(module_or_class, name), _SPEC_MARK, None)

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """The options of a marked function. Looked up without running any descriptor.

        pluggy looks at every attribute statically, 9 times slower; a plugin's hooks are plain
        functions of a module, a class or an instance, so its dictionaries say enough.
        """
        if name.startswith("_"):
            return None
        function = _static(plugin, name)
        options = getattr(function, _MARK, None)
        if not isinstance(options, dict):
            return None
        _check_implementation(options.get("specname") or name, function, options)
        return options


def _static(plugin: object, name: str) -> object:
    if isinstance(plugin, ModuleType):
        return plugin.__dict__.get(name)
    own = getattr(plugin, "__dict__", {}).get(name)
    if own is not None:
        return own
    for base in type(plugin).__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    return None


def _check_implementation(hook: str, function: Any, options: Mapping[str, Any]) -> None:
    if hook not in HOOKS:
        if options.get("optionalhook"):
            return
        advice = did_you_mean(hook, HOOKS) or f"the hooks are {', '.join(HOOKS)}"
        raise ValueError(f"implements the unknown hook `{hook}`; {advice}")
    wrapper = options.get("wrapper") or options.get("hookwrapper")
    if hook == "apply_config" and wrapper:
        raise ValueError("wraps `apply_config`; it may be async, so a wrapper would see no result")
    asynchronous = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if asynchronous and hook != "apply_config":
        raise ValueError(f"`{hook}` is async; only `apply_config` may be")
    code = getattr(function, "__code__", None)
    if code is not None and code.co_kwonlyargcount:
        raise ValueError(f"`{hook}` has keyword-only arguments; pluggy passes none, so make them plain")


def plugin_from(name: str, implementation: object, *, distribution: str = "", version: str = "") -> Plugin:
    """The object as a plugin, its declarations checked. Raises `PluginLoadError`."""

    def refuse(problem: str) -> PluginLoadError:
        return PluginLoadError(name, problem, distribution=distribution, version=version)

    if isinstance(implementation, type):
        raise refuse(f"`{implementation.__name__}` is a class; give an instance of it")
    try:
        api = getattr(implementation, "stackconf_api", hookspecs.API_VERSION)
        provides = getattr(implementation, "provides", ())
    except Exception as error:
        raise refuse(f"its declarations {described(error)}") from error
    if not isinstance(api, int) or api not in hookspecs.SUPPORTED_API_VERSIONS:
        known = ", ".join(map(str, sorted(hookspecs.SUPPORTED_API_VERSIONS)))
        raise refuse(
            f"is written for stackconf api {api!r}, and this stackconf serves {known}; update one of them"
        )
    if not isinstance(provides, (list, tuple)) or not all(_is_type(entry) for entry in provides):
        raise refuse("`provides` is not a sequence of ProviderType")
    if type(implementation).__hash__ is None:
        raise refuse("its object is not hashable; use a plain class, or attrs with eq=False")
    return Plugin(name, implementation, distribution, version, tuple(provides))


def _is_type(entry: object) -> bool:
    from stackconf.types import ProviderType

    return isinstance(entry, ProviderType)


class OwnerHooks:
    """The hooks of one owner, as its providers see them: the owner's and the cross-cutting ones."""

    def __init__(self, owner: Plugin, cross_cutting: Sequence[Plugin] = ()) -> None:
        self.owner = owner
        self.calling = ""
        """The hook that runs now; read by whoever finds that it hangs."""
        self._plugins: dict[int, Plugin] = {}
        self._manager = HookManager()
        for plugin in (*cross_cutting, owner):
            if id(plugin.implementation) not in self._plugins:
                register(self._manager, plugin)
                self._plugins[id(plugin.implementation)] = plugin
        hook = self._manager.hook
        self._default = hook.default_config
        self._validate = hook.validate_user_config
        self._apply = hook.apply_config
        self._alone, self._together = self._stages()
        self._plain_default = _plain(hook.default_config, ("provider", "hardware"))
        self._plain_validate = _plain(
            hook.validate_user_config, ("provider", "user_config", "config", "hardware")
        )

    def default_config(
        self,
        provider: Provider,
        hardware: Hardware,
        others: Mapping[Provider, BaseModel] | None = None,
    ) -> Mapping[str, object] | None:
        """What the plugins derive from the hardware and from the providers that this one follows,
        reasons included. Raises `HookError`.
        """
        self.calling = "default_config"
        arguments = {"provider": provider, "hardware": hardware, "others": others or {}}
        try:
            if (plain := self._plain_default) is not None and not self._manager.monitored:
                result: Any = plain(provider, hardware)
            else:
                result = self._default(**arguments)
            if type(result) is not dict and _is_mapping(result):
                result = dict(result)  # one that computes its values has to do so here
        except BaseException as error:
            if is_users_interrupt(error):
                raise
            raise self._blamed(self._default, error, provider) from error
        if result is None or type(result) is dict:
            return result
        culprit = self._giver("default_config", arguments)
        problem = f"returned {type(result).__name__}, not a mapping of field names to values"
        if inspect.iscoroutine(result):
            result.close()  # or Python complains that nobody awaited it
        raise culprit.failed("default_config", problem, provider.key)

    @property
    def follows(self) -> bool:
        """Whether a plugin derives a provider's defaults from the configurations of others."""
        return any("others" in each.argnames for each in self._default.get_hookimpls())

    @property
    def asks_for_others(self) -> bool:
        """Whether a plugin judges a provider by the configurations of others."""
        return bool(self._together)

    def _stages(self) -> tuple[tuple[Plugin, ...], tuple[Plugin, ...]]:
        """The plugins that judge a provider by itself, and those that take `others`."""
        taking = {id(each.plugin) for each in self._validate.get_hookimpls() if "others" in each.argnames}
        plugins = self._plugins
        return (
            tuple(plugin for key, plugin in plugins.items() if key not in taking),
            tuple(plugin for key, plugin in plugins.items() if key in taking),
        )

    def _validate_caller(self, stage: Sequence[Plugin]) -> pluggy.HookCaller:
        if len(stage) == len(self._plugins):
            return self._validate
        kept = {id(plugin) for plugin in stage}
        left_out = [plugin.implementation for plugin in self._plugins.values() if id(plugin) not in kept]
        return self._manager.subset_hook_caller("validate_user_config", left_out)

    def validate_user_config(
        self,
        provider: Provider,
        user_config: Mapping[str, object],
        config: BaseModel,
        hardware: Hardware,
        others: Mapping[Provider, BaseModel] | None = None,
    ) -> tuple[list[Issue], list[HookError]]:
        """What every plugin finds wrong, and the errors of those that failed to say. Without `others`
        the plugins that take them are not asked, and with them nobody else.
        """
        self.calling = "validate_user_config"
        stage = self._alone if others is None else self._together

        def arguments() -> dict[str, object]:
            return {
                "provider": provider,
                "user_config": user_config,
                "config": config,
                "hardware": hardware,
                "others": others or {},
            }

        try:
            plain = self._plain_validate
            if others is None and plain is not None and not self._manager.monitored:
                answer: Any = plain(provider, user_config, config, hardware)
                if answer is None or (type(answer) is list and not answer):
                    return [], []
                answers = [answer]
            else:
                answers = self._validate_caller(stage)(**arguments())
            return [issue for answer in answers for issue in self._checked(answer, provider)], []
        except BaseException as error:
            if is_users_interrupt(error):
                raise
            return self._validate_apart(provider, stage, arguments())

    def apply_config(
        self, provider: Provider, config: BaseModel | None, previous: BaseModel | None
    ) -> Applied | Awaitable[Applied | None] | None:
        """What the plugin did, perhaps still to be awaited. Raises `HookError`."""
        self.calling = "apply_config"
        try:
            result = self._apply(provider=provider, config=config, previous=previous)
        except BaseException as error:
            if is_users_interrupt(error):
                raise
            raise self._blamed(self._apply, error, provider) from error
        if inspect.isawaitable(result):
            return self._awaited(result, provider)
        return self._as_applied(result, provider)

    def _giver(self, hook: str, arguments: Mapping[str, object]) -> Plugin:
        """Whose answer to a pure hook is not a mapping: each is asked again, apart."""
        for plugin in self._plugins.values():
            others = [each for key, each in self._implementations() if key != id(plugin.implementation)]
            try:
                result = self._manager.subset_hook_caller(hook, others)(**arguments)
            except Exception:  # noqa: BLE001, S112 (it is not the one that answered)
                continue
            if inspect.iscoroutine(result):
                result.close()
            if result is not None and not _is_mapping(result):
                return plugin
        return self.owner

    def _implementations(self) -> list[tuple[int, object]]:
        return [(key, plugin.implementation) for key, plugin in self._plugins.items()]

    def labels(self, hook: str) -> list[str]:
        """The plugins that have a part in a hook's answer, each once, as `explain` names them."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        plugins = [self._plugins.get(id(impl.plugin), self.owner) for impl in reversed(implementations)]
        return [f"plugin {label}" for label in dict.fromkeys(plugin.label for plugin in plugins)]

    def implements(self, hook: str) -> bool:
        """Whether the owner or a cross-cutting plugin implements the hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    async def _awaited(self, result: Awaitable[Any], provider: Provider) -> Applied | None:
        try:
            return self._as_applied(await result, provider)
        except HookError:
            raise
        except (Exception, SystemExit) as error:
            raise self._blamed(self._apply, error, provider) from error

    def _as_applied(self, result: object, provider: Provider) -> Applied | None:
        if result is None or isinstance(result, Applied):
            return result
        appliers = [self._plugins.get(id(impl.plugin), self.owner) for impl in self._apply.get_hookimpls()]
        culprit = appliers[0] if len(appliers) == 1 else self.owner
        raise culprit.failed("apply_config", f"returned {type(result).__name__}, not Applied", provider.key)

    def _checked(self, answer: Iterable[object], provider: Provider) -> list[Issue]:
        def wrong(problem: str) -> HookError:
            return self.owner.failed("validate_user_config", problem, provider.key)

        if isinstance(answer, (str, bytes, Issue)) or not hasattr(answer, "__iter__"):
            raise wrong(f"returned {type(answer).__name__}, not a list of Issue")
        issues: list[Issue] = []
        for issue in answer:
            if not isinstance(issue, Issue):
                raise wrong(f"gave {type(issue).__name__}, not Issue")
            if problem := _defect(issue):
                raise wrong(f"gave an Issue whose {problem}")
            if len(issues) == _MOST_ISSUES:
                raise wrong(f"gave more than {_MOST_ISSUES} issues")
            told = issue.message + issue.path + issue.hint
            issues.append(issue if told.isprintable() else _on_one_line(issue))
        return issues

    def _validate_apart(
        self, provider: Provider, stage: Sequence[Plugin], arguments: Mapping[str, object]
    ) -> tuple[list[Issue], list[HookError]]:
        issues: list[Issue] = []
        errors: list[HookError] = []
        for plugin in stage:
            try:
                for answer in self._validate_caller((plugin,))(**arguments):
                    issues.extend(self._checked(answer, provider))
            except HookError as error:
                errors.append(plugin.failed(error.hook, error.problem, provider.key))
            except BaseException as error:
                if is_users_interrupt(error):
                    raise
                failure = plugin.failed("validate_user_config", described(error), provider.key)
                failure.__cause__ = error
                errors.append(failure)
        return issues, errors

    def _blamed(self, caller: pluggy.HookCaller, error: BaseException, provider: Provider) -> HookError:
        codes = {
            getattr(impl.function, "__code__", None): self._plugins.get(id(impl.plugin), self.owner)
            for impl in caller.get_hookimpls()
        }
        culprit = self.owner
        trace = error.__traceback__
        while trace is not None:
            culprit = codes.get(trace.tb_frame.f_code, culprit)
            trace = trace.tb_next
        return culprit.failed(caller.name, described(error), provider.key)


def _defect(issue: Issue) -> str:
    """What keeps a plugin's issue from being shown, or an empty text."""
    for name in ("message", "path", "hint", "code"):
        if not isinstance(getattr(issue, name), str):
            return f"{name} is {type(getattr(issue, name)).__name__}, not text"
    if issue.level not in _LEVELS:
        return f"level is none of {', '.join(_LEVELS)}"
    return ""


def _on_one_line(issue: Issue) -> Issue:
    def line(text: str) -> str:
        return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))

    message, path, hint = line(issue.message), line(issue.path), line(issue.hint)
    return evolve(issue, message=message, path=path, hint=hint)


def _plain(caller: pluggy.HookCaller, names: tuple[str, ...]) -> Callable[..., Any] | None:
    """The one implementation as a function of the hook's arguments in the order of `names`, where
    there is one and nothing around it: calling it is then all that pluggy would do, and calling it
    directly takes a fraction of the time.
    """
    implementations = caller.get_hookimpls()
    if len(implementations) != 1:
        return None
    only = implementations[0]
    if not set(only.argnames) <= set(names):
        return None
    if only.wrapper or only.hookwrapper or only.kwargnames:
        return None
    function: Callable[..., Any] = only.function
    wanted = only.argnames
    if wanted == names:
        return function
    if wanted == names[:3]:  # as most that judge a configuration, which leave out the hardware
        return lambda first, second, third, *_: function(first, second, third)
    places = [names.index(name) for name in wanted]
    return lambda *given: function(*[given[place] for place in places])


def register(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    """Register a plugin; what pluggy or the checks refuse is a `PluginLoadError`."""
    try:
        # Several plugins may have one name, such as two instances of a class.
        manager.register(plugin.implementation, name=f"{plugin.name} {id(plugin.implementation):x}")
    except (pluggy.PluginValidationError, ValueError) as error:
        problem = _unknown_argument(error) or " ".join(str(error).split())
        raise PluginLoadError(
            plugin.name, problem, distribution=plugin.distribution, version=plugin.version
        ) from error


def _unknown_argument(error: Exception) -> str:
    """What pluggy says of arguments that the hook does not pass, in our words."""
    match = _ARGUMENTS.search(str(error))
    if match is None:
        return ""
    passed = inspect.signature(getattr(hookspecs, match["hook"])).parameters
    names = sorted(re.findall(r"'([^']*)'", match["names"]))
    advice = did_you_mean(names[0], passed) or f"it passes {', '.join(passed) or 'none'}"
    return f"`{match['hook']}` has no argument {', '.join(f'`{name}`' for name in names)}; {advice}"


def implements_provider_hooks(implementation: object) -> bool:
    """Whether a plugin object has a hook that is called for providers."""
    return not _hooks_of(implementation).isdisjoint(PROVIDER_HOOKS)


def implements_discovery(implementation: object) -> bool:
    """Whether a plugin object looks at the machine."""
    return "discover_hardware" in _hooks_of(implementation)


def _hooks_of(implementation: object) -> set[str]:
    return {
        options.get("specname") or name
        for name in dir(implementation)
        if not name.startswith("_")
        and (options := getattr(_static(implementation, name), _MARK, None)) is not None
    }


def is_users_interrupt(error: BaseException) -> bool:
    """Whether an exception is a person's Ctrl-C, which only ever reaches the main thread; whatever
    else comes out of a plugin is the plugin's.
    """
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _is_mapping(value: object) -> bool:
    from collections.abc import Mapping

    return isinstance(value, Mapping)
