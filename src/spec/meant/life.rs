//! What becomes of a program when the manager dies, as meant.

use serde::{Deserialize, Serialize};

/// What becomes of a program when the manager dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnManagerExit {
    /// It is killed.
    #[default]
    Die,
    /// It lives on, and the next manager takes it over.
    Keep,
}
