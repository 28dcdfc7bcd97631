//! The configuration in effect, and another one in its place.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ApiError;
use super::input::{self, Asked};
use super::server::{Door, Shared};
use crate::manager::{Refusal, Request};
use crate::spec::{self, Change, Loaded, Mistake, Mistakes};

pub(super) async fn config(State(shared): Door) -> Result<Json<Value>, ApiError> {
    let spec = shared.ask(|reply| Request::Spec { reply }).await?;
    Ok(Json(spec::resolved_value(&spec, true)))
}

/// How to reload.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    /// Only say what would change.
    #[serde(default)]
    plan: bool,
}

/// What a reload changed, or would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Reloaded {
    /// What becomes of each service.
    changes: Vec<Change>,
    /// What changes that is the manager's own, as dotted paths.
    manager: Vec<String>,
    /// What is allowed and hardly meant.
    warnings: Vec<Mistake>,
    /// Whether the new configuration is in effect now.
    applied: bool,
}

pub(super) async fn reload(
    State(shared): Door,
    asked: Asked,
    request: HttpRequest,
) -> Result<Json<Reloaded>, ApiError> {
    let (parts, body) = request.into_parts();
    let wanted: Reload = input::json(&parts, body, "{}").await?;
    let _reloading = (!wanted.plan).then(|| shared.handle.reloading());
    let before = shared.ask(|reply| Request::Written { reply }).await?;
    let loaded = load(Arc::clone(&shared), before.files.clone()).await;
    if loaded.is_err() && !wanted.plan {
        // A loop too busy to hear of it has other worries.
        let _ = shared.handle.ask(Request::ReloadRefused);
    }
    let loaded = loaded?;
    let changes = spec::diff(&before, &loaded.spec);
    let own = spec::differing_around(&before, &loaded.spec);
    if !wanted.plan {
        let spec = Box::new(loaded.spec);
        shared.ask(|reply| Request::Apply { spec, by: asked.by, reply }).await??;
    }
    let warnings = loaded.warnings;
    Ok(Json(Reloaded { changes, manager: own, warnings, applied: !wanted.plan }))
}

/// Reads the files away from the reactor, since a disk may hang.
async fn load(shared: Arc<Shared>, files: Vec<PathBuf>) -> Result<Loaded, ApiError> {
    let read = move || {
        let variable = |name: &str| {
            let mut all = shared.environment.iter();
            all.find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        spec::load(&files, &variable)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(loaded)) => Ok(loaded),
        Ok(Err(mistakes)) => Err(invalid(&mistakes)),
        Err(_) => Err(Refusal::ShuttingDown.into()),
    }
}

fn invalid(mistakes: &Mistakes) -> ApiError {
    let count = mistakes.total();
    let text = format!(
        "the configuration has {count} {}; the one in effect stays",
        if count == 1 { "mistake" } else { "mistakes" }
    );
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text)
        .with("total", count.into())
        .with("mistakes", json!(mistakes.iter().collect::<Vec<_>>()))
        .with("text", mistakes.to_string().into())
}
