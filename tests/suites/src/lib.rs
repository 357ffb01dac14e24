//! Tests of whole routers: simulation, command line, real packets.
