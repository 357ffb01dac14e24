//! Tests of whole routers: simulation, command line, real packets.

pub mod flow;
pub mod mesh;
pub mod record;
pub mod schema;
pub mod site;
pub mod wire;
