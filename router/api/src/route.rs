//! Names a request: by what method and path, what it carries, and what answers it. Client and server read the same one.

use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How HTTP calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes something.
    Post,
}

/// A request that carries a `Q` and is answered by an `A`. One that carries nothing has a `Q` of `()`.
pub struct Route<Q, A> {
    /// How it is asked.
    pub method: Method,
    /// Where.
    pub path: &'static str,
    carries: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Route<Q, A> {
    /// Reads.
    pub const fn get(path: &'static str) -> Self {
        Self::new(Method::Get, path)
    }

    /// Changes something.
    pub const fn post(path: &'static str) -> Self {
        Self::new(Method::Post, path)
    }

    const fn new(method: Method, path: &'static str) -> Self {
        Self {
            method,
            path,
            carries: PhantomData,
        }
    }
}

impl<Q, A> Clone for Route<Q, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, A> Copy for Route<Q, A> {}

/// The answer of everything that has nothing to say but "done".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}
