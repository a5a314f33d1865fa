"""What a provider cannot be made without, as its source says it, against what Python says."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap

import pytest
from ogx_kit import one

from stackconf_ogx import packages
from stackconf_ogx.internals.base import Spec, quietly
from stackconf_ogx.packages import Missing, missing_packages, missing_requirements


def really_missing(spec: Spec) -> str:
    """What making a provider of the type fails to import: its module, then its factory's imports.
    `?` where upstream's own code fails before that.
    """
    try:
        with quietly():
            module = importlib.import_module(spec.module)
            factory = getattr(module, "get_adapter_impl", None) or module.get_provider_impl
            source = textwrap.dedent(inspect.getsource(factory))
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    exec(ast.unparse(node), dict(vars(module)))
    except ModuleNotFoundError as error:
        return (error.name or "").split(".")[0]
    except ImportError as error:  # a part of a namespace package
        return (error.name or "").split(".")[0]
    except Exception:  # noqa: BLE001 (upstream's own)
        return "?"
    return ""


def test_what_is_said_to_be_missing_is_what_python_misses(upstream):
    """For every type: nothing is said where everything can be imported, and something where not."""
    specs = [spec for spec in upstream.internals.builtin() if really_missing(spec) != "?"]
    assert len(specs) > 60
    said = {spec.key: missing_packages(spec, upstream.internals.package) for spec in specs}
    real = {spec.key: really_missing(spec) for spec in specs}
    tops = {key: {name.split(".")[0] for name in each.at_start} for key, each in said.items()}
    assert {key: name for key, name in real.items() if name and name not in tops[key]} == {}
    assert {key: each.at_start for key, each in said.items() if each.at_start and not real[key]} == {}
    assert {key for key, each in said.items() if each.at_start and not each.requirements} == set()


def test_the_line_says_what_to_install(upstream, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_installed", lambda name: name != "httpx")
    monkeypatch.setattr(packages, "_has", lambda name: name != "pypdf")
    spec = Spec("inference", "remote::x", "x.C", "ogx_t_source", packages=("pypdf>=6.16", "attrs"))
    source = "import httpx\ndef get_adapter_impl(config, deps):\n    import json\n"
    (tmp_path / "ogx_t_source").mkdir()
    (tmp_path / "ogx_t_source" / "__init__.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_packages(spec, "ogx_t") == Missing(("httpx",), (), ("pypdf>=6.16", "httpx"))


SOURCE = {
    "__init__.py": """
        import no_such_a
        from typing import TYPE_CHECKING
        from .other import thing
        if TYPE_CHECKING:
            import no_such_b
        try:
            import no_such_c
        except ImportError:
            pass
        async def get_provider_impl(config, deps):
            import no_such_d.deep
            from .lazily import thing
        def helper():
            import no_such_e
    """,
    "other.py": "import no_such_f\nthing = 1\nclass A:\n    import no_such_g\n",
    "lazily.py": "from ogx_t_home import other\nimport no_such_h\ndef f():\n    import no_such_i\n",
    "never.py": "import no_such_j\n",
}


def test_imports_are_followed_as_python_carries_them_out(tmp_path, monkeypatch):
    (tmp_path / "ogx_t_home").mkdir()
    for name, source in SOURCE.items():
        (tmp_path / "ogx_t_home" / name).write_text(textwrap.dedent(source), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = missing_packages(Spec("inference", "inline::x", "x.C", "ogx_t_home"), "ogx_t_home")
    assert found.at_start == tuple(f"no_such_{letter}" for letter in "adfgh")
    assert found.when_used == ("no_such_e", "no_such_i")


@pytest.mark.parametrize("source", ["def broken(:\n", "\xff"])
def test_source_that_cannot_be_read_says_nothing(tmp_path, monkeypatch, source):
    name = f"ogx_t_broken_{len(source)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_bytes(source.encode("latin-1"))
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_packages(Spec("inference", "inline::x", "x.C", name), name) == Missing()


def test_options_of_pip_are_no_requirements():
    listed = ["no-such-x --index-url https://no-such-y", "-f no-such-z attrs"]
    assert list(missing_requirements(listed)) == ["no-such-x"]


def test_a_provider_whose_packages_are_missing_is_one_error_with_its_place(upstream, tmp_path):
    kind, name = ("remote::weaviate", "weaviate")
    issues = upstream.issues(tmp_path, one(upstream, "vector_io", kind, "{}"))
    (issue,) = [each for each in issues if each.code == "missing-package"]
    assert (issue.level, issue.where.line) == ("error", 6)
    assert f"`{name}`" in issue.message
    assert "weaviate-client" in issue.hint
