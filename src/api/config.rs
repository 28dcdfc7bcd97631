//! The configuration in effect, and another one in its place.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::input::{self, Asked};
use super::server::{Door, Shared};
use crate::manager::{Refusal, Request};
use crate::spec::{self, Loaded, Mistakes};

pub(super) async fn config(State(shared): Door) -> Result<Json<Value>, ApiError> {
    let spec = shared.ask(|reply| Request::Spec { reply }).await?;
    Ok(Json(spec::resolved_value(&spec, true)))
}

/// `{"plan": true}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reload {
    #[serde(default)]
    plan: bool,
}

pub(super) async fn reload(
    State(shared): Door,
    asked: Asked,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let (parts, body) = request.into_parts();
    let wanted: Reload = input::json(&parts, body, "{}").await?;
    let before = shared.ask(|reply| Request::Spec { reply }).await?;
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
    Ok(Json(json!({
        "changes": changes, "manager": own, "warnings": loaded.warnings, "applied": !wanted.plan,
    })))
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
