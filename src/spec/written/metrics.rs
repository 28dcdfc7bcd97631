//! The `metrics:` block.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Where metrics can be scraped over TCP, beside `GET /metrics` on the control socket.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// An address of this machine with its port: `127.0.0.1:9464`.
    pub listen: AddressText,
    /// Whether an address that other machines can reach is allowed. Whoever reaches it can read,
    /// without a password, which services there are and how they fare; nothing can be changed there.
    pub allow_remote: Option<bool>,
}

/// A numeric address with its port, or `localhost` with one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AddressText(pub String);

impl JsonSchema for AddressText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AddressText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "wharf-address",
            "examples": ["127.0.0.1:9464", "[::1]:9464"]
        })
    }
}
