//! What every part runs on: blocking work and buffers.

pub(crate) mod blocking_batch;
pub(crate) mod buffer_pool;
