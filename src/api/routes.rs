//! The one table of routes, from which both the router and the OpenAPI document are made.
//!
//! A route that is not here does not exist, and one that is here is served and documented.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};

use super::server::Shared;
use super::{command, config, events, exits, metrics, openapi, read, upgrade};
use crate::exit::{ExitRecord, Reason};
use crate::manager::{Kind, ManagerStatus, ReplicaStatus};

/// One verb on one path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    /// Its `operationId`.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) takes: Takes,
    pub(super) gives: Gives,
    /// The codes of the errors that belong to it, beside those of [`EVERYWHERE`].
    pub(super) errors: &'static [&'static str],
    pub(super) serve: fn() -> MethodRouter<Arc<Shared>>,
}

/// What is done. `GET` serves `HEAD` too, and `OPTIONS` is answered on every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) about: &'static str,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
    pub(super) example: &'static str,
}

/// What body a request has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    /// None.
    Nothing,
    /// JSON.
    Json { schema: fn(&mut SchemaGenerator) -> Schema, example: &'static str, required: bool },
    /// Bytes, which are nobody's business but the program's.
    Bytes,
}

/// What answer a request has that came true.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gives {
    /// None, with this status.
    Nothing(u16, &'static str),
    /// JSON.
    Json { about: &'static str, schema: fn(&mut SchemaGenerator) -> Schema, example: &'static str },
    /// Bytes of a program.
    Bytes(&'static str),
    /// A text for Prometheus.
    Metrics(&'static str),
    /// A stream of events.
    Events(&'static str),
    /// Another protocol on the same connection.
    Upgrade(&'static str),
}

/// Errors that any request may get.
pub(super) const EVERYWHERE: &[&str] =
    &["bad_path", "bad_query", "busy", "shutting_down", "timed_out"];

/// Errors of a request with a body.
pub(super) const WITH_BODY: &[&str] =
    &["bad_body", "slow_body", "too_large", "unfinished", "unsupported_type"];

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const NAME: Parameter = Parameter {
    name: "name",
    place: Place::Path,
    about: "A service, or one replica of it as `NAME%2FREPLICA`.",
    schema: |_| json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(/[1-9][0-9]{0,5})?$" }),
    example: "web",
};

const REPLICA: Parameter = Parameter {
    name: "replica",
    place: Place::Query,
    about: "One replica, where the path names a service.",
    schema: |_| json_schema!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }),
    example: "1",
};

const COMMAND: Parameter = Parameter {
    name: "x-wharf-command",
    place: Place::Header,
    about: "What the client calls itself; it stands in records as who asked. Of its printable ASCII 64 characters are kept, the rest is left out.",
    schema: |_| json_schema!({ "type": "string" }),
    example: "wharf stop",
};

/// A list of words with commas between them.
fn listed(word: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": format!("^{word}(,{word})*$") })
}

const TARGET: &str = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(/[1-9][0-9]{0,5})?";

/// What a person may write for a point in time; see `parse_since`.
const TIME: &str = "0|([0-9]{1,4}(\\.[0-9]{1,3})?(us|ms|s|m|h|d)){1,3}|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])((T| )([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?Z)?)?";

const SINCE_SEQ: Parameter = Parameter {
    name: "since_seq",
    place: Place::Query,
    about: "Only records with a greater number; with it `limit` is that of a page, the first ones.",
    schema: |_| json_schema!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
    example: "1841",
};

const EXITS: &[Parameter] = &[
    SINCE_SEQ,
    Parameter {
        name: "service",
        place: Place::Query,
        about: "Only of this service, or this replica as `NAME/REPLICA`.",
        schema: |_| json_schema!({ "type": "string", "pattern": format!("^{TARGET}$") }),
        example: "worker",
    },
    Parameter {
        name: "reason",
        place: Place::Query,
        about: "Only with this reason.",
        schema: of::<Reason>,
        example: "oom_killed",
    },
    Parameter {
        name: "since",
        place: Place::Query,
        about: "Not older than this: `10m` ago, RFC 3339, or a day or minute in the zone of the manager.",
        schema: |_| json_schema!({ "type": "string", "pattern": format!("^({TIME})$") }),
        example: "1h",
    },
    Parameter {
        name: "limit",
        place: Place::Query,
        about: "No more than so many; without `since_seq` the last ones.",
        schema: |_| json_schema!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        example: "100",
    },
];

const EVENTS: &[Parameter] = &[
    Parameter {
        name: "since",
        place: Place::Query,
        about: "From there on: the id of an event, the number of an exit, or a point in time as for exits. Without it from now on.",
        schema: |_| json_schema!({ "type": "string", "pattern": format!("^({TIME}|[0-9]{{1,18}}|([0-9]{{1,18}}\\.){{3}}[0-9a-f]{{16}})$") }),
        example: "1841",
    },
    Parameter {
        name: "service",
        place: Place::Query,
        about: "Only of these services or replicas, with commas between them. Events of no service are left out.",
        schema: |_| listed(TARGET),
        example: "web,worker/3",
    },
    Parameter {
        name: "kind",
        place: Place::Query,
        about: "Only of these kinds, with commas between them. A gap among them and the manager's last word are told all the same.",
        schema: |_| {
            let all: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            listed(&format!("({})", all.join("|")))
        },
        example: "exit,restart",
    },
    Parameter {
        name: "follow",
        place: Place::Query,
        about: "Whether to go on with what happens; `false` ends with what was.",
        schema: |_| json_schema!({ "type": "boolean", "default": true }),
        example: "false",
    },
    Parameter {
        name: "last-event-id",
        place: Place::Header,
        about: "The id of the last event that was heard. It comes before `since`, so that a client which connects again to the same address goes on where it was.",
        schema: |_| json_schema!({ "type": "string", "pattern": "^(([0-9]{1,18}\\.){3}[0-9a-f]{16})?$" }),
        example: "1841.3.77.9f86d081884c7d65",
    },
];

/// Of a message to a port.
const fn close(about: &'static str) -> Parameter {
    Parameter {
        name: "close",
        place: Place::Query,
        about,
        schema: |_| json_schema!({ "type": "boolean", "default": false }),
        example: "true",
    }
}

const SEND: &[Parameter] = &[
    NAME,
    REPLICA,
    close(
        "Whether the program's input is closed after the message; an empty body is no message then.",
    ),
    WAIT,
    COMMAND,
];

const CALL: &[Parameter] = &[
    NAME,
    REPLICA,
    close(
        "Whether the program's input is closed after the message, which goes out when all others are answered. The reply is then all that the program still says, given when it has ended with success. An empty body is no message then.",
    ),
    Parameter {
        name: "timeout",
        place: Place::Query,
        about: "How long to wait for the reply, at most `1h`; without it as long as the port says.",
        schema: |_| json_schema!({ "type": "string", "pattern": "^[1-9][0-9]{0,2}(ms|s)$" }),
        example: "5s",
    },
    WAIT,
    COMMAND,
];

/// For room, where a port has as many messages waiting as it takes.
const WAIT: Parameter = Parameter {
    name: "wait",
    place: Place::Query,
    about: "How long to wait for room where as many messages wait for the program as may, at most `1h`; without it the message is refused as `busy`.",
    schema: |_| json_schema!({ "type": "string", "pattern": "^[1-9][0-9]{0,2}(ms|s)$" }),
    example: "10s",
};

const DEPENDENTS: Parameter = Parameter {
    name: "dependents",
    place: Place::Query,
    about: "Whether all that depends on it is stopped before it. Not of a single replica.",
    schema: |_| json_schema!({ "type": "boolean", "default": false }),
    example: "true",
};

const ROLLING: Parameter = Parameter {
    name: "rolling",
    place: Place::Query,
    about: "Whether one replica after the other is restarted. Not of a single replica.",
    schema: |_| json_schema!({ "type": "boolean", "default": false }),
    example: "true",
};

const NAMED: &[Parameter] = &[NAME, REPLICA];
const COMMANDED: &[Parameter] = &[NAME, REPLICA, COMMAND];

const REPLICAS: &str = r#"[{"service":"web","replica":1,"state":"running","pid":4242,"incarnation":17,"restarts":2,"ready":true,"uptime_s":93.2,"crash_looping":false,"failures_in_a_row":0,"since":"2026-11-22T07:29:55.376123456Z","next_start_s":null,"last_exit":null,"port":null,"command":["./server"],"labels":{}}]"#;

const CONTROL: &[&str] = &["bad_name", "no_such_service", "no_such_replica", "ended", "disk"];
/// The same, where one replica alone may make no sense.
const CONTROL_OF_ALL: &[&str] =
    &["bad_name", "no_such_service", "no_such_replica", "one_replica", "ended", "disk"];

/// A command whose answer is the replicas it was about.
const fn control(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    serve: fn() -> MethodRouter<Arc<Shared>>,
) -> Route {
    Route {
        verb: Verb::Post,
        path,
        id,
        summary,
        description,
        parameters: COMMANDED,
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The replicas, once it has come true.",
            schema: of::<Vec<ReplicaStatus>>,
            example: REPLICAS,
        },
        errors: CONTROL,
        serve,
    }
}

/// Every route.
pub(super) const ROUTES: &[Route] = &[
    Route {
        verb: Verb::Get,
        path: "/v1/manager",
        id: "getManager",
        summary: "The manager's own state",
        description: "Who it is, since when it runs, and what is not as it should be.",
        parameters: &[],
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The manager.",
            schema: of::<ManagerStatus>,
            example: r#"{"version":"0.1.0","pid":4100,"guardian_pid":4099,"generation":2,"realm":"9f86d081884c7d65","started_at":"2026-11-22T07:29:55.376123456Z","cgroups":"in use","degraded":[],"output_dropped_bytes":0,"journal_write_errors":0,"records_waiting":0,"shutting_down":false}"#,
        },
        errors: &[],
        serve: || get(read::manager),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/services",
        id: "listServices",
        summary: "Every replica of every service",
        description: "In the order of the configuration, as `wharf ps --json` shows them.",
        parameters: &[],
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The replicas.",
            schema: of::<Vec<ReplicaStatus>>,
            example: REPLICAS,
        },
        errors: &[],
        serve: || get(read::services),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/services/{name}",
        id: "getService",
        summary: "The replicas of one service",
        description: "Or one of them. A service of no replicas gives none.",
        parameters: NAMED,
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The replicas.",
            schema: of::<Vec<ReplicaStatus>>,
            example: REPLICAS,
        },
        errors: &["bad_name", "no_such_service", "no_such_replica"],
        serve: || get(read::service),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/services/{name}/port",
        id: "getPort",
        summary: "How a port is spoken to",
        description: "The `port` block in effect as the manager means it, for those who speak the port's own protocol in its place.",
        parameters: NAMED,
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The port.",
            schema: |_| json_schema!({ "type": "object", "required": ["port"], "properties": { "port": { "type": "object", "required": ["framing", "replies", "max_frame", "timeout"] } } }),
            example: r#"{"port":{"framing":"lines","replies":"one","max_frame":16777216,"queue":1024,"timeout":"30s"}}"#,
        },
        errors: &["bad_name", "no_such_service", "no_such_replica", "not_a_port"],
        serve: || get(read::port),
    },
    control(
        "/v1/services/{name}/start",
        "startService",
        "Start what is down",
        "Answered when it runs, or when it ended instead.",
        || post(command::start),
    ),
    Route {
        parameters: &[NAME, REPLICA, DEPENDENTS, COMMAND],
        errors: CONTROL_OF_ALL,
        ..control(
            "/v1/services/{name}/stop",
            "stopService",
            "Stop it and keep it down",
            "Answered when it is down, which may take its grace period. It stays down over a restart of the manager. What depends on it runs on, unless that is to be stopped first.",
            || post(command::stop),
        )
    },
    Route {
        parameters: &[NAME, REPLICA, ROLLING, COMMAND],
        errors: CONTROL_OF_ALL,
        ..control(
            "/v1/services/{name}/restart",
            "restartService",
            "Stop it and start it again",
            "Answered when the new run runs. One replica after the other, if so asked: the next one when the one before it is ready.",
            || post(command::restart),
        )
    },
    Route {
        parameters: &[NAME, COMMAND],
        takes: Takes::Json {
            schema: of::<command::Scale>,
            example: r#"{"replicas":3}"#,
            required: true,
        },
        errors: &["bad_name", "bad_replicas", "no_such_service", "one_replica", "ended", "disk"],
        ..control(
            "/v1/services/{name}/scale",
            "scaleService",
            "Make it so many replicas",
            "Answered when they run and those above are gone. It outlives the manager, until `replicas` of the service is another in a file that is reloaded.",
            || post(command::scale),
        )
    },
    Route {
        takes: Takes::Json {
            schema: of::<command::Which>,
            example: r#"{"signal":"HUP"}"#,
            required: true,
        },
        errors: &[
            "bad_name",
            "no_such_service",
            "no_such_replica",
            "no_such_signal",
            "not_running",
            "disk",
        ],
        ..control(
            "/v1/services/{name}/signal",
            "signalService",
            "Send a signal to its processes",
            "To the process of each replica that runs.",
            || post(command::signal),
        )
    },
    Route {
        verb: Verb::Post,
        path: "/v1/services/{name}/call",
        id: "callService",
        summary: "Send a message to a port and wait for the reply",
        description: "The body is the message and the answer's body is the reply, byte for byte. Where a reply has several messages there is a newline between them, and `x-wharf-messages` says how many there are. An error says whether the program can have seen the message.",
        parameters: CALL,
        takes: Takes::Bytes,
        gives: Gives::Bytes("The reply."),
        errors: SPOKEN,
        serve: || post(command::call),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/services/{name}/send",
        id: "sendToService",
        summary: "Send a message to a port",
        description: "Answered when it is written to the program, which need not have read it.",
        parameters: SEND,
        takes: Takes::Bytes,
        gives: Gives::Nothing(204, "It is written."),
        errors: SPOKEN,
        serve: || post(command::send),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/exits",
        id: "listExits",
        summary: "How runs ended",
        description: "Exit records from the journal, oldest first. To read on, give the last `seq` as `since_seq`.",
        parameters: EXITS,
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The records.",
            schema: of::<Vec<ExitRecord>>,
            example: concat!("[", include_str!("../../docs/exit-record.json"), "]"),
        },
        errors: &["internal"],
        serve: || get(exits::exits),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/events",
        id: "streamEvents",
        summary: "What happens, as server-sent events",
        description: "Each event has an id, its kind as `event` and one line of JSON as `data`. Exits are told once each, also over the death of the manager. What can no longer be told is named by an event of kind `gap`. A comment comes every 15 s.",
        parameters: EVENTS,
        takes: Takes::Nothing,
        gives: Gives::Events("The stream; the JSON of an event is a StreamEvent."),
        errors: &["bad_header", "internal"],
        serve: || get(events::events),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/connect",
        id: "connect",
        summary: "Go on in wire protocol 1",
        description: "With `Connection: Upgrade` and `Upgrade: wharf` the connection speaks frames from the answer on: calls, messages, monitors and what ports say. docs/PROTOCOL.md has them. Without these headers it is refused.",
        parameters: &[COMMAND],
        takes: Takes::Nothing,
        gives: Gives::Upgrade("The connection speaks protocol 1; the client says HELLO first."),
        errors: &["upgrade_required"],
        serve: || get(upgrade::connect),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/config",
        id: "getConfig",
        summary: "The configuration in effect",
        description: "As it is meant, with every default written out and secrets masked.",
        parameters: &[],
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The configuration, in the form of services.yaml.",
            schema: |_| json_schema!({ "type": "object", "required": ["services"], "properties": { "services": { "type": "object" } } }),
            example: r#"{"version":1,"services":{"web":{"command":["./server"]}}}"#,
        },
        errors: &[],
        serve: || get(config::config),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/reload",
        id: "reload",
        summary: "Take over the edited configuration",
        description: "Reads the same files again. What did not change runs on.",
        parameters: &[COMMAND],
        takes: Takes::Json {
            schema: of::<config::Reload>,
            example: r#"{"plan":true}"#,
            required: false,
        },
        gives: Gives::Json {
            about: "What changed, or would change.",
            schema: of::<config::Reloaded>,
            example: r#"{"changes":[{"service":"web","change":"changed","fields":["command"],"effect":"restart"}],"manager":[],"warnings":[],"applied":false}"#,
        },
        errors: &["invalid", "listen", "disk"],
        serve: || post(config::reload),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/upgrade",
        id: "upgrade",
        summary: "Have another binary go on with everything",
        description: "Answered once nobody else waits for an answer and nothing is under way; the manager then makes room for one of that binary, which takes over every run. Refused where a run would end by it.",
        parameters: &[COMMAND],
        takes: Takes::Json {
            schema: of::<command::Upgrade>,
            example: r#"{"binary":"/usr/local/bin/wharf","form":1}"#,
            required: true,
        },
        gives: Gives::Nothing(202, "It has begun."),
        errors: &["upgrade"],
        serve: || post(command::upgrade),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/shutdown",
        id: "shutdown",
        summary: "Stop everything",
        description: "Answered at once; a second one kills what has not obeyed yet.",
        parameters: &[COMMAND],
        takes: Takes::Nothing,
        gives: Gives::Nothing(202, "It has begun."),
        errors: &[],
        serve: || post(command::shutdown),
    },
    Route {
        verb: Verb::Get,
        path: "/metrics",
        id: "getMetrics",
        summary: "Everything that can be measured",
        description: "In Prometheus's text format; also over TCP where `metrics.listen` is set.",
        parameters: &[],
        takes: Takes::Nothing,
        gives: Gives::Metrics("The families, one after the other."),
        errors: &[],
        serve: || get(metrics::metrics),
    },
    Route {
        verb: Verb::Get,
        path: "/openapi.json",
        id: "getOpenApi",
        summary: "This document",
        description: "OpenAPI 3.1.",
        parameters: &[],
        takes: Takes::Nothing,
        gives: Gives::Json {
            about: "The document.",
            schema: |_| json_schema!({ "type": "object", "required": ["openapi", "paths"] }),
            example: r#"{"openapi":"3.1.0","paths":{}}"#,
        },
        errors: &[],
        serve: || get(openapi::serve),
    },
];

const SPOKEN: &[&str] = &[
    "bad_name",
    "no_such_service",
    "no_such_replica",
    "not_a_port",
    "no_replies",
    "input_closed",
    "not_running",
    "taken",
    "unfit",
    "ended",
    "bad_reply",
    "program_error",
    "timed_out",
];
