//! Controls a running node over its socket. Every command on a running node, and `qshare share`,
//! goes through [`Client`].

mod client;
mod find;
mod named;
mod stream;

pub(crate) use client::{Client, ClientError};
pub(crate) use find::{FindNodeError, alive, connect};
pub(crate) use named::{NameError, choose, choose_shares};
