"""Faulty stack files. What is said about each stands in `said.txt`, without the file's name.

A fault is a stack file with all the real types in which something is replaced, or a small file of
one provider.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

SECRET = "hunter2secret"
"""Planted where a secret stands; no output may hold it."""

ENVIRON = {"BAD_KEY": "0123", "BAD_SECRET": SECRET}
"""What the tests set in the environment of the command."""

STACK = """\
version: 2
image_name: everything
apis: [inference, vector_io, agents, scoring, telemetry, tool_runtime]
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config:
      url: http://localhost:11434
      network:
        timeout: {connect: 2.0, read: 30.0}
        limits:
          max_connections: 10
  vector_io:
  - provider_id: faiss
    provider_type: inline::faiss
    config:
      kvstore:
        type: sqlite
        db_path: ${env.BAD_FOLDER:=state}/faiss.db
  - provider_id: sqlite-vec
    provider_type: inline::sqlite-vec
    config:
      db_path: state/vec.db
      persistence:
        backend: kv_default
        namespace: vec
  - provider_id: sqlite_vec
    provider_type: inline::sqlite_vec
    config:
      db_path: state/old.db
  agents:
  - provider_id: meta-reference
    provider_type: inline::meta-reference
    config:
      persistence:
        agent_state: {backend: kv_default, namespace: agents}
        responses: {backend: sql_default, table_name: responses}
  scoring:
  - provider_id: braintrust
    provider_type: inline::braintrust
    config:
      openai_api_key: ${env.BAD_OPENAI_KEY:=}
  telemetry:
  - provider_id: meta-reference
    provider_type: inline::meta-reference
    config:
      service_name: ${env.BAD_SERVICE_NAME:=stack}
      sinks: [console]
  tool_runtime:
  - provider_id: brave-search
    provider_type: remote::brave-search
    config:
      api_key: ${env.BAD_SECRET:=}
      max_results: 3
  - provider_id: tavily-search
    provider_type: remote::tavily-search
    config:
      api_key: ${env.BAD_TAVILY_KEY:=}
      max_results: 3
storage:
  backends:
    kv_default: {type: kv_sqlite, db_path: state/kv.db}
    sql_default: {type: sql_sqlite, db_path: state/sql.db}
"""


@frozen
class Fault:
    """One faulty file. `provider` is the one that the fault is in, if it is in one."""

    text: bytes
    provider: str = ""


FAULTS: dict[str, Fault] = {}


def raw(name: str, text: str | bytes, provider: str = "") -> None:
    FAULTS[name] = Fault(text if isinstance(text, bytes) else text.encode(), provider)


def swap(name: str, old: str, new: str, provider: str = "") -> None:
    assert STACK.count(old) == 1, (name, STACK.count(old))
    raw(name, STACK.replace(old, new), provider)


_TYPES = {
    "inference/p": "remote::ollama",
    "vector_io/p": "inline::faiss",
    "agents/p": "inline::meta-reference",
    "scoring/p": "inline::braintrust",
    "telemetry/p": "inline::meta-reference",
    "tool_runtime/p": "remote::brave-search",
}


def field(name: str, provider: str, config: str, type_: str = "") -> None:
    """One provider whose config begins in line 6, column 7."""
    api, provider_id = provider.split("/")
    text = f"providers:\n  {api}:\n  - provider_id: {provider_id}\n"
    text += f"    provider_type: {type_ or _TYPES[provider]}\n    config:\n"
    text += "".join(f"      {line}\n" for line in config.splitlines())
    raw(name, text, provider)


OLLAMA, FAISS, AGENTS, SCORING, TELEMETRY, SEARCH = _TYPES
VEC = "vector_io/vec"

field("syntax: indentation", OLLAMA, "url: http://x\n  model: y")
field(
    "syntax: a reference in braces without quotes", OLLAMA, "network: {headers: {X: ${env.BAD_SECRET:=blue}}}"
)
field("syntax: a reference in brackets without quotes", OLLAMA, "allowed_models: [${env.BAD_MODEL:=a}]")
raw("syntax: a tab", "providers:\n\tinference: []\n")
field("syntax: an open quote", OLLAMA, 'url: "http://x\nmodel: y')
field("syntax: a colon", OLLAMA, "url: http://x: y")
field("syntax: an at sign", OLLAMA, "url: @x")
field("syntax: a star", OLLAMA, "model: *llama")
raw("syntax: a list beside its key", "providers:\n  inference: - provider_id: x\n")
field("syntax: a tag", OLLAMA, "url: !!python/object/apply:os.system [ls]")
raw(
    "alias bomb",
    "x-a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"x-{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "providers: {}\n",
)
raw("shape: a list", "- provider_id: x\n")
raw("shape: text", "hello\n")
raw("shape: a number", "12\n")
raw("shape: providers are a list", "providers:\n- provider_id: x\n  provider_type: remote::ollama\n")
raw("shape: providers are text", "providers: none\n")
raw(
    "shape: an api is a mapping",
    "providers:\n  inference:\n    provider_id: ollama\n    provider_type: remote::ollama\n",
)
raw("shape: an api is text", "providers:\n  inference: ollama\n")
raw("shape: a provider is text", "providers:\n  inference:\n  - ollama\n")
raw(
    "shape: a config is a list",
    "providers:\n  inference:\n  - provider_id: p\n    provider_type: remote::ollama\n    config: [a]\n",
    "inference/p",
)
raw("shape: two documents", "providers: {}\n---\nproviders: {}\n")
raw("shape: apis are text", "apis: inference\nproviders: {}\n")
raw("no providers", "version: 2\nimage_name: x\n")
raw("no providers, misspelt", "version: 2\nprovider:\n  inference: []\n")
swap("unknown top-level key", "image_name:", "color:")
swap("unknown top-level key, misspelt", "storage:", "storag:")
raw("unknown setting", "providers: {}\nstackconf: {seald: true}\n")
raw("bad setting", "providers: {}\nstackconf: {sealed: maybe}\n")
swap("unknown api", "  inference:\n", "  inferense:\n", "inferense/ollama")
swap("unknown api, like none", "  inference:\n", "  weather:\n", "weather/ollama")
raw("unknown api in the list", "apis: [inferense]\nproviders: {}\n")
swap("unknown type, misspelt", "remote::ollama", "remote::olama", "inference/ollama")
swap("unknown type, half of it", "remote::ollama", "ollama", "inference/ollama")
swap("unknown type", "remote::ollama", "remote::vertexai", "inference/ollama")
swap("unknown type, of another api", "remote::ollama", "inline::faiss", "inference/ollama")
swap("type is a number", "remote::ollama", "12", "inference/ollama")
swap("type is missing", "    provider_type: remote::ollama\n", "", "inference/ollama")
swap("type misspelt", "provider_type: remote::ollama", "provider_typ: remote::ollama", "inference/ollama")
swap("id is missing", "provider_id: ollama\n    provider_type", "provider_type")
swap("id is a number", "provider_id: ollama", "provider_id: 12")
swap("id misspelt", "provider_id: ollama", "provider_idd: ollama")
swap("config misspelt", "    config:\n      url", "    confg:\n      url", "inference/ollama")
swap(
    "a field beside config",
    "    config:\n      url: http://localhost:11434\n",
    "    url: http://x\n    config:\n",
    "inference/ollama",
)
swap("duplicate id", "provider_id: sqlite-vec", "provider_id: faiss")
field("duplicate key", OLLAMA, "url: http://x:1\nurl: http://y:1")
field("misspelt field", OLLAMA, "urll: http://x")
field("misspelt field, in capitals", OLLAMA, "URL: http://x")
field("misspelt field, with a dash", OLLAMA, "base-url: http://x/v1")
field("misspelt field, like none", SCORING, "colour: red")
field("misspelt field, one level down", OLLAMA, "network:\n  limits:\n    max_conections: 2")
field("misspelt field, two levels down", OLLAMA, "network:\n  tls:\n    verfy: true")
field("misspelt field, in a union", OLLAMA, "network:\n  timeout: {conect: 2}")
field("misspelt field, in a union told by its tag", FAISS, "kvstore: {type: sqlite, db_pth: x.db}")
field(
    "misspelt field, required, in a union told by its keys", FAISS, "persistence: {backend: kv, namespce: a}"
)
field(
    "misspelt field, required",
    AGENTS,
    "persistence:\n  agent_stat: {backend: kv, namespace: a}\n  responses: {backend: s, table_name: t}",
)
field("misspelt field, read as a boolean", OLLAMA, "on: true")
swap(
    "misspelt storage backend",
    "        backend: kv_default\n",
    "        backend: kv_defualt\n",
    "vector_io/sqlite-vec",
)
field("wrong type: text for a number", SEARCH, "max_results: many")
field("wrong type: a fraction", SEARCH, "max_results: 3.5")
field("wrong type: not a boolean", OLLAMA, "refresh_models: perhaps")
field("wrong type: text for a list", OLLAMA, "allowed_models: llama")
field("wrong type: a number in a list of texts", OLLAMA, "allowed_models: [a, 2]")
field("wrong type: a mapping in a list of texts", OLLAMA, "allowed_models: [{name: a}]")
field("wrong type: text for a mapping", OLLAMA, "network: fast")
field("wrong type: a list for a mapping", OLLAMA, "network: {headers: [a]}")
field("wrong type: a mapping for text", OLLAMA, "url: {a: b}")
field("wrong type: a number for text", OLLAMA, "model: 12")
field("wrong type: a null for text", OLLAMA, "url: null")
field("wrong type: a date for text", OLLAMA, "model: 2024-01-31")
field("wrong type: in a union of a number and a mapping", OLLAMA, "network: {timeout: soon}")
field("wrong type: none of the choices", TELEMETRY, "sinks: [consol]")
field("wrong type: from the environment", SEARCH, "max_results: ${env.BAD_N:=many}")
field("wrong type: nothing from the environment", SEARCH, "max_results: ${env.BAD_N:=}")
field("union: no kind", FAISS, "kvstore: {db_path: x.db}")
field("union: unknown kind", FAISS, "kvstore: {type: sqllite, db_path: x.db}")
field("union: unknown kind as text", FAISS, "kvstore: sqllite")
field("union: a number", FAISS, "kvstore: 12")
field("out of bounds: too small", SEARCH, "max_results: 0")
field("out of bounds: too large", SEARCH, "max_results: 21")
field("out of bounds: huge", OLLAMA, "num_ctx: 1" + "0" * 400)
field("out of bounds: not a number", SEARCH, "timeout: .nan")
field("out of bounds: endless", SEARCH, "timeout: .inf")
field("out of bounds: in a mapping of a union", OLLAMA, "network: {timeout: {connect: -1}}")
field("out of bounds: from the environment", SEARCH, "max_results: ${env.BAD_N:=99}")
field("out of bounds: a rule of the type", VEC, "db_path: x.db\npage_size: 1000", type_="inline::sqlite-vec")
field("missing required field", VEC, "cache_bytes: 65536", type_="inline::sqlite-vec")
field(
    "missing required field, one level down",
    AGENTS,
    "persistence:\n  agent_state: {backend: kv, namespace: a}",
)
field(
    "missing required field, in a union",
    AGENTS,
    "persistence:\n  agent_state: {backend: kv}\n  responses: {backend: s, table_name: t}",
)
raw(
    "missing required field, no config",
    "providers:\n  vector_io:\n  - provider_id: vec\n    provider_type: inline::sqlite-vec\n",
    "vector_io/vec",
)
field("missing environment variable", OLLAMA, "url: ${env.BAD_NOT_SET}")
swap("missing environment variable in an id", "provider_id: ollama", "provider_id: ${env.BAD_NOT_SET}")
field("lowercase reference", OLLAMA, "url: ${env.ollama_url:=http://x}")
field("nested reference", OLLAMA, "url: ${env.BAD_A:=${env.BAD_B:=http://x}}")
field("reference without end", OLLAMA, "url: ${env.BAD_A")
field("reference with a colon", OLLAMA, "url: ${env:BAD_A}")
field("a shell's reference", OLLAMA, "url: ${BAD_A}")
field("a shell's default", OLLAMA, "url: ${env.BAD_A:-http://x}")
field("the older grammar", OLLAMA, "url: ${env.BAD_A:=http://localhost:1}\nmodel: ${env.BAD_M:llama}")
field(
    "the newer grammar",
    OLLAMA,
    "url: ${env.BAD_A:http://localhost:1}\nmodel: ${env.BAD_M:llama}\nkeep_alive: ${env.BAD_K:=5m}",
)
field("numeric-looking secret", SEARCH, "api_key: 0123")
field("numeric-looking secret, long", SEARCH, "api_key: 123456789")
field("secret in braces", SEARCH, "api_key: {hunter2secret}")
field("secret in brackets", SEARCH, "api_key: [hunter2secret]")
field("secret that no header can carry", SCORING, "openai_api_key: hunter2secret hunter2secret")
field("secret in a header", OLLAMA, "network: {headers: {Authorization: 12345678}}")
field("bad URL: no scheme", OLLAMA, "url: localhost:11434")
field("bad URL: another scheme", OLLAMA, "url: ftp://x")
field("bad URL: port", OLLAMA, "url: http://x:99999")
field("bad URL: password", OLLAMA, "url: http://u:hunter2secret@x")
field("bad URL: no host", OLLAMA, "url: http://")
field("bad URL: a word", TELEMETRY, "otel_trace_endpoint: collector")
field("bad URL: an open bracket", TELEMETRY, "otel_trace_endpoint: 'http://u:hunter2secret@[x/'")
field("bad URL: of another service", SCORING, "openai_base_url: api.openai.com")
field(
    "bad URL: of another database",
    FAISS,
    "kvstore: {type: postgres, connection_string: 'mysql://u:hunter2secret@h/d'}",
)
raw("bytes that are not UTF-8", b"providers: {}\n# caf\xe9\n")
raw("a control character", "providers: {}\nimage_name: a\x00b\n")
raw("an empty file", "")
raw("a file of comments", "# nothing\n")
raw("a file of a null", "null\n")
field(
    "everything at once",
    OLLAMA,
    "urll: x\nnum_ctx: 1\nnum_thread: many\nnetwork: {timeout: {conect: 2, read: -1}}\n"
    "auth_credential: 12345\nkeep_alive: ${env.bad}\nmodel: ${env.BAD_NOT_SET}",
)


def said(file: str = "said.txt") -> dict[str, list[str]]:
    """What a file expects to be said, by the fault's name."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            lines = found.setdefault(line[3:], [])
        elif line:
            lines.append(line)
    return found
