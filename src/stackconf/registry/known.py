"""Which distribution provides a type that is not installed, as far as the project knows.

Plugins are found by their entry points, never by this table; it only lets the message about a
missing type say what to install.
"""

from __future__ import annotations

DISTRIBUTIONS = {
    "agents/inline::meta-reference": "stackconf-agents",
    "inference/inline::sentence-transformers": "stackconf-sentence-transformers",
    "inference/inline::vllm": "stackconf-vllm",
    "inference/remote::llama-cpp-server": "stackconf-llama-cpp",
    "inference/remote::ollama": "stackconf-ollama",
    "inference/remote::vllm": "stackconf-vllm",
    "scoring/inline::braintrust": "stackconf-braintrust",
    "telemetry/inline::meta-reference": "stackconf-telemetry",
    "tool_runtime/remote::brave-search": "stackconf-web-search",
    "tool_runtime/remote::tavily-search": "stackconf-web-search",
    "vector_io/inline::faiss": "stackconf-faiss",
    "vector_io/inline::sqlite-vec": "stackconf-sqlite-vec",
    "vector_io/inline::sqlite_vec": "stackconf-sqlite-vec",
}

RUNTIMES = {"llama-stack": "stackconf-ogx", "ogx": "stackconf-ogx"}
"""Which distribution brings a runtime that is not installed."""

APIS = frozenset(
    {
        "agents",
        "batches",
        "benchmarks",
        "connectors",
        "container_runtime",
        "containers",
        "conversations",
        "datasetio",
        "datasets",
        "eval",
        "file_processors",
        "files",
        "inference",
        "interactions",
        "memory",
        "messages",
        "models",
        "post_training",
        "prompts",
        "responses",
        "safety",
        "scoring",
        "scoring_functions",
        "shields",
        "skills",
        "synthetic_data_generation",
        "telemetry",
        "tool_groups",
        "tool_runtime",
        "vector_dbs",
        "vector_io",
        "vector_stores",
    }
)
"""The apis of llama-stack and OGX, October 2024 to 1.5.0; used only to recognise a misspelling."""
