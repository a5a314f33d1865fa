"""Faulty files that upstream's own versions were given, made small.

`OLD` are for llama-stack 0.2.12, whose `llama stack run` started silently with six of them and
answered eight with a traceback; `NEW` for OGX 1.5.0, whose `--dry-run` passed eleven. What stackconf
says stands in `said_upstream.txt`; nothing is said where the file is right.
"""

from __future__ import annotations

OLD_STACK = """\
version: '2'
image_name: ollama
apis: [agents, inference, tool_runtime, vector_io]
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config:
      url: ${env.BAD_URL:http://localhost:11434}
  vector_io:
  - provider_id: sqlite_vec
    provider_type: inline::sqlite_vec
    config:
      db_path: ${env.BAD_FOLDER:~/.llama}/vec.db
  agents:
  - provider_id: meta-reference
    provider_type: inline::meta-reference
    config:
      persistence_store: {type: sqlite, namespace: null, db_path: agents.db}
      responses_store: {type: sqlite, db_path: responses.db}
  tool_runtime:
  - provider_id: brave-search
    provider_type: remote::brave-search
    config:
      api_key: ${env.BAD_BRAVE_KEY:}
      max_results: 3
server:
  port: 8321
"""
NEW_STACK = """\
version: 2
distro_name: starter
apis: [inference, tool_runtime, vector_io]
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config:
      base_url: ${env.BAD_URL:=http://localhost:11434/v1}
  vector_io:
  - provider_id: faiss
    provider_type: inline::faiss
    config:
      persistence:
        namespace: vector_io::faiss
        backend: kv_default
  - provider_id: sqlite-vec
    provider_type: inline::sqlite-vec
    config:
      db_path: ${env.BAD_FOLDER:=state}/vec.db
      persistence:
        namespace: vector_io::sqlite_vec
        backend: kv_default
  tool_runtime:
  - provider_id: tavily-search
    provider_type: remote::tavily-search
    config:
      api_key: ${env.BAD_TAVILY_KEY:=}
      max_results: 3
storage:
  backends:
    kv_default:
      type: kv_sqlite
      db_path: ${env.BAD_FOLDER:=state}/kv.db
  stores:
    metadata:
      namespace: registry
      backend: kv_default
server:
  port: 8321
"""
Fault = tuple[str, str, str]
"""A name, and what is replaced by what."""

OLD: tuple[Fault, ...] = (
    ("misspelt field", "      url: $", "      urll: $"),
    (
        "duplicate id",
        "  agents:\n",
        "  - {provider_id: sqlite_vec, provider_type: 'inline::faiss'}\n  agents:\n",
    ),
    ("unknown top-level key", "server:\n", "sever:\n"),
    ("lowercase reference", "${env.BAD_BRAVE_KEY:}", "${env.bad_brave_key:}"),
    ("the newer grammar", "${env.BAD_BRAVE_KEY:}", "${env.BAD_BRAVE_KEY:=}"),
    ("a conditional that is off", "provider_id: ollama", "provider_id: ${env.BAD_ENABLE+ollama}"),
    (
        "agents without a store",
        (
            "    config:\n      persistence_store: {type: sqlite, namespace: null, db_path: agents.db}\n"
            "      responses_store: {type: sqlite, db_path: responses.db}\n"
        ),
        "    config: {}\n",
    ),
    ("wrong type", "max_results: 3", "max_results: many"),
    ("missing required field", "      db_path: ${env.BAD_FOLDER:~/.llama}/vec.db\n", "      {}\n"),
    ("missing environment variable", "${env.BAD_URL:http://localhost:11434}", "${env.BAD_URL}"),
    ("unknown api", "  tool_runtime:\n", "  tool_runtimes:\n"),
    ("unknown type", "remote::brave-search", "remote::brave-serach"),
    ("a provider without a type", "    provider_type: remote::ollama\n", ""),
    (
        "an api that is no list",
        "  - provider_id: ollama\n    provider_type: remote::ollama\n    config:\n      url: ${env.BAD_URL:http://localhost:11434}\n",
        "    provider_id: ollama\n",
    ),
    ("no YAML", "image_name: ollama\n", "image_name: 'ollama\n"),
)
NEW: tuple[Fault, ...] = (
    (
        "unknown storage backend",
        "vector_io::faiss\n        backend: kv_default",
        "vector_io::faiss\n        backend: kv_defualt",
    ),
    ("bad URL", "${env.BAD_URL:=http://localhost:11434/v1}", "localhost:11434"),
    ("duplicate id", "provider_id: sqlite-vec", "provider_id: faiss"),
    ("lowercase reference", "${env.BAD_TAVILY_KEY:=}", "${env.tavily_key:=}"),
    ("missing required field", "      db_path: ${env.BAD_FOLDER:=state}/vec.db\n", ""),
    (
        "nested default",
        "${env.BAD_URL:=http://localhost:11434/v1}",
        "${env.BAD_URL:=${env.BAD_OTHER:=http://localhost}}",
    ),
    ("numeric secret", "${env.BAD_TAVILY_KEY:=}", "0123456"),
    ("numeric secret from the environment", "${env.BAD_TAVILY_KEY:=}", "${env.BAD_KEY:=}"),
    ("the older grammar", "${env.BAD_TAVILY_KEY:=}", "${env.BAD_TAVILY_KEY:none}"),
    ("unknown field", "max_results: 3", "max_result: 3"),
    ("unknown top-level key", "distro_name:", "distroname:"),
    ("wrong type", "max_results: 3", "max_results: several"),
    ("unknown api", "  inference:\n", "  inferences:\n"),
    ("unknown type", "remote::ollama", "remote::olama"),
    ("missing environment variable", "${env.BAD_URL:=http://localhost:11434/v1}", "${env.BAD_URL}"),
    ("a provider without a type", "    provider_type: remote::ollama\n", ""),
    (
        "a config that is no mapping",
        "config:\n      base_url: ${env.BAD_URL:=http://localhost:11434/v1}",
        "config: http://localhost",
    ),
    ("providers that are no mapping", "providers:\n", "providers: below\nx-providers:\n"),
    ("no YAML", "apis: [inference, tool_runtime, vector_io]", "apis: [inference, tool_runtime"),
)
