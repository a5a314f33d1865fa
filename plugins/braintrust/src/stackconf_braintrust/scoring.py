"""Scorers of `autoevals`, with a client of their own and a bound on what runs at once."""

from __future__ import annotations

import importlib.metadata
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import define, field, frozen

from stackconf import StackconfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import openai
    from autoevals import Score, Scorer  # type: ignore[import-untyped]

    from stackconf_braintrust.config import BraintrustConfig

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
JUDGE_SECONDS = 120.0

_UNAUTHORIZED = 401


class ScorerUnavailable(StackconfError):
    """No such scorer, or one that needs a key where there is none."""


class ScoringUnusable(StackconfError):
    """The library does not work, or the service refuses the key."""


@frozen
class _Kind:
    """A scorer: its class in `autoevals`, and which of its arguments take the models."""

    name: str
    judged: bool = True
    model: str | None = "model"
    embedding: str | None = None


SCORERS: Mapping[str, _Kind] = {
    "braintrust::factuality": _Kind("Factuality"),
    "braintrust::answer-correctness": _Kind("AnswerCorrectness", embedding="embedding_model"),
    "braintrust::answer-relevancy": _Kind("AnswerRelevancy", embedding="embedding_model"),
    "braintrust::answer-similarity": _Kind("AnswerSimilarity", model=None, embedding="model"),
    "braintrust::faithfulness": _Kind("Faithfulness"),
    "braintrust::context-entity-recall": _Kind("ContextEntityRecall"),
    "braintrust::context-precision": _Kind("ContextPrecision"),
    "braintrust::context-recall": _Kind("ContextRecall"),
    "braintrust::context-relevancy": _Kind("ContextRelevancy"),
    "braintrust::levenshtein": _Kind("Levenshtein", judged=False),
    "braintrust::exact-match": _Kind("ExactMatch", judged=False),
}
"""The nine of upstream (`providers/inline/scoring/braintrust/braintrust.py`) under its names, and
two that need no judge."""


@define(eq=False)
class Scoring:
    """What one configuration scores with."""

    config: BraintrustConfig
    version: str
    """The version of `autoevals`."""
    client: openai.OpenAI | None = field(repr=False)
    _threads: ThreadPoolExecutor = field(repr=False)

    def score(self, scorer: str, rows: Iterable[Mapping[str, Any]]) -> list[Score]:
        """Score rows of upstream's form, at most `max_concurrency` at once; results in their order.

        A row has `input_query`, `generated_answer`, `expected_answer` and perhaps `context`.
        Raises `ScorerUnavailable`, and whatever a judge's service answers with.
        """
        evaluate = self.scorer(scorer)
        return list(self._threads.map(lambda row: _score(evaluate, row), rows))

    def scorer(self, name: str) -> Scorer:
        """A scorer of `autoevals` that asks this configuration's judge."""
        import autoevals

        kind = SCORERS.get(name)
        if kind is None:
            raise ScorerUnavailable(f"no scorer `{name}`; there are {', '.join(SCORERS)}")
        made: type[Scorer] = getattr(autoevals, kind.name)
        if not kind.judged:
            return made()
        if self.client is None:
            raise ScorerUnavailable(f"`{name}` needs openai_api_key, and the provider has none")
        models = ((kind.model, self.config.judge_model), (kind.embedding, self.config.embedding_model))
        arguments: dict[str, Any] = {name: model for name, model in models if name and model}
        if kind.name == "ContextEntityRecall":
            # Its embeddings come from a scorer within, which takes the model itself.
            arguments["pairwise_scorer"] = autoevals.EmbeddingSimilarity(
                model=self.config.embedding_model, client=self.client
            )
        return made(client=self.client, **arguments)

    def check(self) -> str | None:
        """Score a pair whose result is known; what is wrong, or `None`. Asks no service."""
        results = [
            (name, self.scorer(name).eval(output="stack", expected=expected).score, known)
            for name, expected, known in _KNOWN
        ]
        wrong = [f"{name} gives {found} and not {known}" for name, found, known in results if found != known]
        return f"autoevals {self.version} does not score as it should: {wrong[0]}" if wrong else None

    def close_later(self) -> None:
        """End it once the rows that are being scored are done, without waiting for them."""
        self._threads.shutdown(wait=False)
        if self.client is not None:
            threading.Thread(target=self._end, name="stackconf-braintrust-close", daemon=True).start()

    def _end(self) -> None:
        self._threads.shutdown(wait=True)
        if self.client is not None:
            self.client.close()


_KNOWN: Sequence[tuple[str, str, float]] = (
    ("braintrust::levenshtein", "stuck", 0.8),
    ("braintrust::exact-match", "stack", 1.0),
)


def build(config: BraintrustConfig) -> Scoring:
    """Make the scoring of a configuration, and prove that the library works.

    The key goes to the client alone: never into the environment, and not through `autoevals.init`,
    which sets a context variable that other threads do not see and that cannot be read to restore
    it. Raises `ScoringUnusable`.
    """
    try:
        version = importlib.metadata.version("autoevals")
        threads = ThreadPoolExecutor(config.max_concurrency, thread_name_prefix="stackconf-scoring")
        scoring = Scoring(config, version, _client(config), threads)
        wrong = scoring.check()
    except ImportError as error:
        raise ScoringUnusable(
            f"{error.name or error} cannot be imported; install autoevals and openai"
        ) from None
    if wrong is not None:
        scoring.close_later()
        raise ScoringUnusable(wrong)
    return scoring


def _client(config: BraintrustConfig) -> openai.OpenAI | None:
    if config.openai_api_key is None:
        return None
    import openai

    # Without an address of its own autoevals would send an OpenAI key to Braintrust's gateway.
    return openai.OpenAI(
        api_key=config.openai_api_key.get_secret_value(),
        base_url=config.openai_base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL,
        timeout=openai.Timeout(JUDGE_SECONDS, connect=CONNECT_SECONDS),
    )


def address(client: openai.OpenAI) -> str:
    """Where the judge is, for people: without the user and password that OPENAI_BASE_URL may hold."""
    parts = urlsplit(str(client.base_url))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def ask(client: openai.OpenAI) -> str | None:
    """Ask the judge's service for its models: why it cannot be reached, or `None`.

    Listing models costs nothing. Only 401 means that the key is wrong; a key may be good for
    judging and not for listing, and a service may have no list. Raises `ScoringUnusable` for 401.
    """
    import openai

    timeout, where = openai.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS), address(client)
    try:
        client.with_options(timeout=timeout, max_retries=0).models.list()
    except openai.APIStatusError as error:
        if error.status_code == _UNAUTHORIZED:
            # The service's message repeats a part of the key.
            raise ScoringUnusable(f"{where} refuses openai_api_key (401)") from None
    except openai.APITimeoutError:
        return f"cannot reach {where}: no answer within {ANSWER_SECONDS:g} s"
    except openai.APIConnectionError as error:
        return f"cannot reach {where}: {_cause(error)}"
    except openai.OpenAIError as error:
        return f"cannot understand {where}: {type(error).__name__}"
    return None


def _cause(error: BaseException) -> str:
    """The innermost reason, such as `connection refused`."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.lower() or type(error).__name__


def _score(evaluate: Scorer, row: Mapping[str, Any]) -> Score:
    return evaluate.eval(
        output=row["generated_answer"],
        expected=row.get("expected_answer"),
        input=row.get("input_query"),
        context=row.get("context"),
    )
