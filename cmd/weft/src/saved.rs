//! Looks at the state that a router left: which mesh the node is in, and whether what a command says fits it.

use std::path::Path;
use std::time::Instant;

use weft_router::crypto::SystemCrypto;
use weft_router::keyfile;
use weft_router::persist::{self, Store};
use weft_router_proto::addresses::refuse_unfit;
use weft_router_proto::router::SavedMesh;
use weft_types::{Code, Problem};

use crate::config::Config;

/// The mesh that was saved here. Fails where another router has the state, or where it cannot be read.
pub(crate) fn mesh(state_dir: &Path) -> Result<Option<SavedMesh>, Problem> {
    if !state_dir.join(persist::FILE).exists() {
        keyfile::check_alone(state_dir)?;
        return Ok(None);
    }
    if !state_dir.join(keyfile::FILE).exists() {
        return Err(damaged(state_dir, "the node's key"));
    }
    let (_store, saved) = Store::open(state_dir)?;
    let keys = keyfile::load_or_create(state_dir, &saved, &mut SystemCrypto::new())?;
    SavedMesh::read(&saved, keys.node(), Instant::now()).map_err(|what| damaged(state_dir, what))
}

fn damaged(state_dir: &Path, what: &str) -> Problem {
    let what = format!("{what} in {} cannot be read", state_dir.display());
    Problem::new(Code::StateDamaged, what)
        .fix("Restore it from a backup, or begin anew: sudo weft reset --force")
}

/// Refuses what a router would refuse, or ignore, with the state as it is.
pub(crate) fn refuse_unfit_settings(config: &Config) -> Result<(), Problem> {
    match mesh(&config.state_dir) {
        Ok(Some(mesh)) => refuse_other_mesh(config, &mesh),
        Ok(None) => refuse_beginning(config),
        // What is wrong with the state itself the router tells in its own words.
        Err(problem) if problem.code == Code::DaemonRunning => Err(problem),
        Err(_) => Ok(()),
    }
}

/// A node of no mesh needs a token where a file is to hold one; and who begins a mesh, an address in it.
fn refuse_beginning(config: &Config) -> Result<(), Problem> {
    if let Some(missing) = &config.token_missing {
        return Err(missing.clone());
    }
    let begins = config.peers.is_empty() && config.token.is_none();
    match config.address {
        Some(address) if begins => refuse_unfit(address, &[config.range.into()]),
        Some(_) | None => Ok(()),
    }
}

/// A mesh keeps what it began with.
fn refuse_other_mesh(config: &Config, mesh: &SavedMesh) -> Result<(), Problem> {
    let name = &mesh.name;
    let has = if config.said.has("mtu") && config.mtu != mesh.mtu {
        format!(
            "the MTU of mesh \"{name}\" is {}, not {}",
            mesh.mtu, config.mtu
        )
    } else if config.said.has("range") && !mesh.ranges.contains(&config.range.into()) {
        let (has, wanted) = (mesh.ranges[0], config.range);
        format!("the range of mesh \"{name}\" is {has}, not {wanted}")
    } else {
        return Ok(());
    };
    Err(Problem::new(Code::Configuration, has)
        .why("this node is in that mesh, which keeps what it began with")
        .fix("Leave the setting out"))
}
