//! Tells what was told to be dialled, and has it changed.

use weft_api::Done;
use weft_api::targets::{CONNECT, FORGET, RETRY, TargetStatus, TargetsRequest};
use weft_router_proto::io::{Command, Target};
use weft_router_proto::status as core;
use weft_types::{Code, Problem};

use super::handle::Api;
use super::routes::Routes;
use crate::ask::Ask;
use crate::resolve::is_target;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on_request(CONNECT, |api, request: TargetsRequest| async move {
            api.connect(request.targets).await
        })
        .on_request(FORGET, |api, request: TargetsRequest| async move {
            api.forget(request.targets).await
        })
        .on(RETRY, |api| async move { api.retry().await })
}

impl Api {
    /// Dials, for good.
    pub async fn connect(&self, targets: Vec<String>) -> Result<Done, Problem> {
        if let Some(text) = targets.iter().find(|target| !is_target(target)) {
            return Err(Problem::new(
                Code::Usage,
                format!("{text:?} is no host: HOST, HOST:PORT or [ADDRESS]:PORT"),
            ));
        }
        let targets = targets.into_iter().map(Target).collect();
        self.ask(Ask::order(Command::Connect { targets })).await?;
        Ok(Done {})
    }

    /// Dials no more.
    pub async fn forget(&self, targets: Vec<String>) -> Result<Done, Problem> {
        let targets = targets.into_iter().map(Target).collect();
        self.ask(Ask::order(Command::Forget { targets })).await?;
        Ok(Done {})
    }

    /// Dials at once whoever is waited for.
    pub async fn retry(&self) -> Result<Done, Problem> {
        self.ask(Ask::order(Command::Retry)).await?;
        Ok(Done {})
    }
}

/// What is told of a target.
pub(super) fn assemble(target: core::TargetStatus) -> TargetStatus {
    let wait = target.retry_in.map(|wait| wait.as_millis());
    TargetStatus {
        target: target.target,
        state: target.state.to_owned(),
        node: target.node,
        retry_in_ms: wait.map(|wait| u64::try_from(wait).unwrap_or(u64::MAX)),
        last_error: target.last_error,
    }
}
