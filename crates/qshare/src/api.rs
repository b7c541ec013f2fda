//! The node's API: HTTP/JSON under `/api/1/` with server-sent events, as docs/api.md specifies it.
//! The control socket and the web page serve the same [`routes`].

mod capabilities;
mod downloads;
mod error;
mod events;
mod extract;
mod info;
mod limits;
mod link;
mod listen;
pub(crate) mod objects;
mod qr;
mod rates;
mod routes;
mod search;
mod shares;
pub(crate) mod socket;
mod state;
#[cfg(test)]
mod tests;
mod uploads;

pub(crate) use routes::{no_route, routes};
use state::absolute;
pub(crate) use state::{Api, ApiConfig, short_group_id};
