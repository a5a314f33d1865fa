"""The bodies that go in and out, as pydantic models: for the OpenAPI document, and for those who read it.

What is really sent is made by `stackconf.shapes`; a test holds every answer against these. They allow
no other keys, so that nothing is sent that is not documented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

if TYPE_CHECKING:
    from pydantic.config import JsonDict


class Document(BaseModel):
    """A body, or a part of one."""

    model_config = ConfigDict(extra="forbid")


class Position(Document):
    """A place in a text file; line and column count from 1."""

    file: str
    line: int = Field(ge=1)
    column: int = Field(ge=1)


class Issue(Document):
    """Something wrong, or dropped. `text` is the line that people see."""

    level: Literal["error", "warning", "ignored"]
    code: str
    provider: str
    path: str
    message: str
    hint: str
    where: Position | None
    text: str


class Problem(BaseModel):
    """What went wrong (RFC 9457), with all that the exception carries: `issues`, `conflicts`, `report`."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = ""
    instance: str = ""
    issues: list[Issue] = []


class Entry(Document):
    """One provider of a configuration, in the stack file's shape."""

    provider_id: str
    provider_type: str = ""
    config: dict[str, JsonValue]


class Inspected(Document):
    """Every provider's configuration, by api."""

    providers: dict[str, list[Entry]]


UpdateClass = Literal["in_place", "reload", "restart"]
Layer = Literal["class", "hardware", "stack", "overlay"]


class FieldChange(Document):
    """One leaf that would change, and where its new value is from."""

    path: str
    before: JsonValue
    after: JsonValue
    update: UpdateClass
    layer: Layer
    source: str
    reason: str


class ProviderChange(Document):
    """What would happen to one provider. `target` and `base` are keyed digests."""

    provider: str
    provider_type: str
    kind: Literal["join", "change", "leave", "restore"]
    update: UpdateClass
    fields: list[FieldChange]
    class_defaults: int
    known: bool
    target: str
    base: str


class Plan(Document):
    """Everything that an apply would do, in its order."""

    base_revision: int
    stack_digest: str
    hardware_fingerprint: str
    changes: list[ProviderChange]
    unchanged: list[str]
    issues: list[Issue]


class StackPlan(Plan):
    """A plan, with the stack and the store that it is for."""

    stack: str
    store: str | None


class Outcome(Document):
    """How one provider fared."""

    provider: str
    kind: str
    state: Literal["applied", "pending", "failed", "rolled_back", "unknown", "not_attempted"]
    detail: str
    error: str
    seconds: float


class Report(Document):
    """How an apply went, provider by provider."""

    state: Literal["applied", "pending", "failed", "nothing"]
    revision: int
    attempt: int
    took_over: int
    outcomes: list[Outcome]
    warnings: list[str]


class Streamed(Document):
    """One server-sent event. `data` is JSON: of `progress` a step that begins or ends, of `report` the
    whole report, of `problem` what went wrong.
    """

    event: Literal["progress", "report", "problem"]
    id: str
    data: str


class Begun(Document):
    """An apply that goes on without the caller; `events` is where to watch it."""

    apply: int
    events: str


class Registered(Document):
    """What came of a registration. `report` is there where it was applied at once."""

    name: str
    revision: int
    assigned: bool
    kept: dict[str, list[Entry]]
    dropped: list[Issue]
    warnings: list[Issue]
    plan: Plan
    report: Report | None = None


class Changed(Document):
    """What came of a change of one configuration, with the plan of now."""

    name: str
    result: Literal["assigned", "unassigned", "unregistered"]
    revision: int
    plan: Plan


class Configuration(Document):
    """A configuration with what it says. `problem` is why that cannot be read."""

    name: str
    source: str
    revision: int
    providers: dict[str, list[Entry]]
    problem: str | None


class Cards(Document):
    """So many cards of one kind, at least."""

    count: int
    slugs: list[str]
    vendor: str
    memory_bytes: int | None
    compute_capability: tuple[int, int] | None


class Requirement(Document):
    """The machine that a configuration is for; everything is a least amount."""

    text: str
    cards: Cards | None
    cores: float | None
    memory_bytes: int | None


class Provenance(Document):
    """Where the values of a shipped configuration are from, and whether somebody tried them."""

    source: str
    verified: bool
    note: str


class Fit(Document):
    """Whether the server's machine is one that a configuration is for."""

    text: str
    verdict: Literal["fits", "near", "unknown", "no"]
    why: str
    missing: list[str]
    share: str


class Listed(Document):
    """One configuration in a listing; `assigned` is its place in the overlay, from 1. `fit` is `null`
    where nobody asked, and where it says for no machine that it is.
    """

    name: str
    state: Literal["assigned", "available"]
    assigned: int | None
    source: str
    revision: int | None
    providers: list[str]
    description: str
    hardware: Requirement | None
    provenance: Provenance | None
    fit: Fit | None
    best: bool


class Configurations(Document):
    """Every configuration, assigned ones first."""

    revision: int
    configurations: list[Listed]


class RolledBack(Document):
    """What came of a rollback, with the plan of now."""

    revision: int
    restores: int
    changed: bool
    plan: Plan


class Beaten(Document):
    """A candidate of a lower layer that another one beat."""

    layer: Layer
    value: JsonValue
    source: str
    reason: str


class Origin(Document):
    """Where one leaf of the effective configuration is from."""

    path: str
    value: JsonValue
    layer: Layer
    source: str
    reason: str
    user_field: bool
    update: UpdateClass
    beat: list[Beaten]


class Part(Document):
    """Why a provider has what it has of the accelerators, and whether that is anything."""

    reason: str
    some: bool


class Explained(Document):
    """The origins of a provider's values. `share` is null where nothing is shared."""

    provider: str
    provider_type: str
    share: Part | None
    origins: list[Origin]


class Holder(Document):
    """Who is applying now."""

    pid: int
    actor: str
    since: str


class Tried(Document):
    """The last attempt that touched a provider."""

    attempt: int
    revision: int
    state: str
    error: str
    at: str


class Standing(Document):
    """Where one provider stands."""

    provider: str
    state: str
    desired: int | None
    tried: Tried | None
    applied: int | None


class Step(Document):
    """One provider's turn in an attempt that was cut off."""

    provider: str
    provider_type: str
    kind: str
    target: dict[str, JsonValue]


class OpenAttempt(Document):
    """An attempt that has not ended."""

    attempt: int
    revision: int
    begun_at: str
    actor: str
    undoing: bool
    touched: list[str]
    steps: list[Step]


class Status(Document):
    """Where every provider stands."""

    revision: int
    running: Holder | None
    cut_off: OpenAttempt | None
    lost: str | None
    providers: list[Standing]


class Summary(Document):
    """A revision without its state."""

    revision: int
    at: str
    actor: str
    action: str
    subject: str
    restores: int | None
    lost: str | None


class Revision(Summary):
    """A revision with what is registered and assigned at it."""

    assigned: list[str]
    configurations: list[Configuration]


class Attempt(Document):
    """One apply, as history lists it."""

    attempt: int
    revision: int
    state: str
    begun_at: str
    finished_at: str | None
    seconds: float | None
    actor: str
    provider: str | None
    error: str | None
    now: int | None
    took_over: int | None


class History(Document):
    """Revisions and attempts, newest first."""

    oldest: int
    applied: int | None
    revisions: list[Summary]
    attempts: list[Attempt]


class FieldDiff(Document):
    """One leaf that differs between two revisions; a side that is not there is left out."""

    provider: str
    path: str
    before: JsonValue = None
    after: JsonValue = None


class ConfigurationDiff(Document):
    """What became of one configuration."""

    name: str
    change: str
    assignment: str
    before: int | None
    after: int | None
    fields: list[FieldDiff]


class Difference(Document):
    """What changed from one revision to another."""

    before: int
    after: int
    configurations: list[ConfigurationDiff]
    effective: list[ProviderChange] | None = None
    unresolved: list[str] | None = None


class FieldDrift(Document):
    """One leaf that is applied otherwise than the files say."""

    path: str
    applied: JsonValue
    file: JsonValue
    configuration: str | None
    revision: int | None
    actor: str | None
    changed: list[str]
    file_layer: Layer | None
    file_source: str


class ProviderDrift(Document):
    """One provider that drifted."""

    provider: str
    provider_type: str
    kind: str
    revision: int
    detail: str
    fields: list[FieldDrift]


class Drift(Document):
    """What is applied otherwise than the files say."""

    stack: str
    providers: list[ProviderDrift]
    same: list[str]
    issues: list[Issue]


class Record(Document):
    """What is known to be applied to one provider."""

    provider: str
    provider_type: str
    revision: int
    at: str
    known: bool
    ran_before: bool


class Applied(Document):
    """What was last applied to each provider."""

    providers: dict[str, list[Entry]]
    applied: dict[str, Record]
    head: int
    attempt: int
    at: str
    stack_digest: str
    store: str
    source: Literal["store", "file"]
    path: str
    problem: str


class Written(Document):
    """A value that an export wrote into the file."""

    provider: str
    path: str
    value: JsonValue
    source: str


class Variable(Document):
    """A variable of the environment that must be set where the exported file is read."""

    name: str
    provider: str | None
    path: str
    what: str


class Exported(Document):
    """The configuration as a stack file."""

    text: str
    changes: list[Written]
    variables: list[Variable]
    issues: list[Issue]


class Issues(Document):
    """Everything that is wrong with the stack; `problems` are the plugins that could not be loaded."""

    issues: list[Issue]
    problems: list[Problem]


class Stack(Document):
    """Which stack this is. `store` is the id of its store; `provider` is there where one was asked for."""

    stack: str
    store: str
    revision: int
    pending: list[str]
    provider: str | None = None


class ListedProvider(Document):
    """One provider of the stack, and the plugin that serves its type."""

    provider: str
    provider_type: str
    state: Literal["valid", "invalid", "not managed", "disabled"]
    last_apply: str | None
    plugin: str | None


class Providers(Document):
    """Every provider of the stack."""

    providers: list[ListedProvider]


class Unit(Document):
    """A fraction of a card's memory, or of that of a MIG instance of it."""

    card: int
    instance: int | None
    fraction: float


class Share(Document):
    """What of the accelerators one provider may use, and the machine narrowed to that."""

    reason: str
    units: list[Unit]
    hardware: dict[str, Any]


class Claim(Document):
    """What one field of a provider takes of a card, and where its value is from."""

    provider: str
    card: int
    instance: int | None
    share: float
    path: str
    source: str


class Shares(Document):
    """Who has what of the accelerators."""

    shares: dict[str, Share]
    claims: list[Claim]


class ComparedMachine(Document):
    """One machine of a comparison, and what is wrong on it alone."""

    name: str
    hardware: dict[str, Any]
    issues: list[Issue]


class ComparedField(Document):
    """One field, with its origin on each machine, in their order."""

    path: str
    differs: bool
    values: list[Origin | None]


class ComparedProvider(Document):
    """One provider on every machine."""

    provider: str
    provider_type: str
    valid: list[bool]
    fields: list[ComparedField]


class Comparison(Document):
    """The effective configuration on several machines, side by side."""

    stack: str
    revision: int
    machines: list[ComparedMachine]
    providers: list[ComparedProvider]
    issues: list[Issue]


class Pruned(Document):
    """How much was forgotten; `oldest` is the oldest revision that is kept, but for the `pinned`."""

    oldest: int
    revisions: int
    documents: int
    attempts: int
    pinned: list[int]


class StackFileState(Document):
    """The stack file that is served, and what is wrong with the one that is there now."""

    name: str
    read_at: str
    tried_at: str | None
    problem: Problem | None


class StoreState(Document):
    """Why nothing can be written to the store now, if that is so."""

    problem: str | None


class Ready(Document):
    """Whether the stack can be applied, and what is in the way."""

    ready: bool
    settled: bool
    revision: int
    applying: bool
    ending: bool
    stack_file: StackFileState
    store: StoreState
    issues: list[Issue]


class ListedType(Document):
    """One installed provider type, `api/provider_type`."""

    type: str
    state: Literal["enabled", "disabled"]
    plugin: str


class Types(Document):
    """The installed provider types."""

    types: list[ListedType]


class TypeField(Document):
    """One field of a provider type's configuration."""

    path: str
    type: str
    required: bool
    default: JsonValue
    user_field: bool
    update: UpdateClass
    secret: bool
    description: str
    aliases: list[str]


class ProviderType(Document):
    """A provider type with its fields, and as a JSON schema in which user fields are marked."""

    type: str
    description: str
    plugin: str
    config_class: str
    api_dependencies: list[str]
    accelerators: bool | Literal["little", "depends"]
    fields: list[TypeField]
    json_schema: dict[str, Any] | None
    schema_problem: str = ""


OnConflict = Literal["refuse", "retry", "force"]


_SAYS: JsonDict = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Entry"}},
}


def _whole(value: object) -> object:
    """JSON knows one kind of number: 2.0 is whole."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[int, BeforeValidator(_whole)]


class Registration(Document):
    """A configuration to register, and what to do with it."""

    config: dict[str, Any] | str = Field(
        description="`{api: [{provider_id, config}]}`, or its YAML or JSON as a text",
        json_schema_extra={"anyOf": [_SAYS, {"type": "string", "minLength": 2}]},
    )
    file: str | None = Field(
        None, max_length=4096, description="What the text is called in the positions of issues"
    )
    name: str = Field("default", min_length=1, max_length=200)
    assign: bool = True
    apply: bool = False
    on_dropped: Literal["warn", "error", "ignore"] = "warn"
    seal: bool = True
    require_healthy: bool = False
    wait: float = Field(0.0, ge=0, le=3600, description="Seconds that another apply may still take")
    expected_revision: Number | None = Field(None, ge=0)
    on_conflict: OnConflict = "refuse"


class Expecting(Document):
    """Which head revision a change is for."""

    expected_revision: Number | None = Field(None, ge=0)
    on_conflict: OnConflict = "refuse"


class Apply(Document):
    """What to apply, and how: exactly this plan, or what is planned then."""

    plan: StackPlan | Plan | None = None
    facts: dict[str, Any] | None = Field(
        None, description="The machine that the plan was made for: a stale one says then what moved"
    )
    require_healthy: bool = False
    wait: float = Field(0.0, ge=0, le=3600, description="Seconds that another apply may still take")


class Nothing(Document):
    """Nothing more needs to be said."""


class Prune(Document):
    """How many revisions and attempts to keep."""

    keep: Number


class Compare(Document):
    """The machines by name, each as a snapshot has it."""

    machines: dict[str, dict[str, Any]]


class Recover(Document):
    """How long another apply may still take."""

    wait: float = Field(0.0, ge=0, le=3600)


class Rollback(Document):
    """The revision to go back to: a number, or `head-1`."""

    revision: Number | str
    expected_revision: Number | None = Field(None, ge=0)
