//! What is: the manager and the services, as the loop sees them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::input;
use super::server::Door;
use crate::manager::{ManagerStatus, Refusal, ReplicaStatus, Request, SpeakError};
use crate::name::{ServiceName, Target};
use crate::spec::{Port, Spec, meant_instead};

/// `?replica=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfReplica {
    pub(super) replica: Option<u32>,
}

pub(super) async fn manager(State(shared): Door) -> Result<Json<ManagerStatus>, ApiError> {
    Ok(Json(shared.ask(|reply| Request::Snapshot { reply }).await?.manager))
}

pub(super) async fn services(State(shared): Door) -> Result<Json<Vec<ReplicaStatus>>, ApiError> {
    Ok(Json(shared.ask(|reply| Request::Snapshot { reply }).await?.replicas))
}

pub(super) async fn service(
    State(shared): Door,
    Path(name): Path<String>,
    query: Result<Query<OfReplica>, QueryRejection>,
) -> Result<Json<Vec<ReplicaStatus>>, ApiError> {
    let target = input::target(&name, input::query(query)?.replica)?;
    let mut replicas = shared.ask(|reply| Request::Snapshot { reply }).await?.replicas;
    replicas.retain(|one| {
        one.service == target.service.as_str()
            && target.replica.is_none_or(|replica| replica == one.replica)
    });
    if replicas.is_empty() {
        // A service may well have no replicas; then nothing is the right answer.
        let spec = shared.ask(|reply| Request::Spec { reply }).await?;
        if let Some(refusal) = missing(&spec, &target) {
            return Err(refusal.into());
        }
    }
    Ok(Json(replicas))
}

/// How a port is spoken to.
#[derive(Debug, Serialize)]
pub(super) struct About {
    port: Port,
}

pub(super) async fn port(
    State(shared): Door,
    Path(name): Path<String>,
    query: Result<Query<OfReplica>, QueryRejection>,
) -> Result<Json<About>, ApiError> {
    let target = input::target(&name, input::query(query)?.replica)?;
    let spec = shared.ask(|reply| Request::Spec { reply }).await?;
    if let Some(refusal) = missing(&spec, &target) {
        return Err(refusal.into());
    }
    let port = spec.services.get(&target.service).and_then(|service| service.port.clone());
    let port = port.ok_or(SpeakError::NotAPort { name: target.to_string() })?;
    Ok(Json(About { port }))
}

/// Why there is no such service or replica; `None` when there is.
fn missing(spec: &Spec, target: &Target) -> Option<Refusal> {
    let name = target.to_string();
    let Some(service) = spec.services.get(&target.service) else {
        let known = spec.services.keys().map(ServiceName::as_str);
        let suggestion = meant_instead(target.service.as_str(), known).map(str::to_owned);
        return Some(Refusal::NoSuchService { name, suggestion });
    };
    let replicas = service.replicas;
    target.replica.filter(|replica| *replica > replicas).map(|_| Refusal::NoSuchReplica {
        name,
        service: target.service.to_string(),
        replicas,
    })
}
