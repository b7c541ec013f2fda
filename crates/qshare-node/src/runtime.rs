//! What the other parts run on: supervised tasks, blocking work, reusable buffers.

mod blocking;
mod blocking_batch;
mod buffer_pool;
mod tasks;

pub(crate) use blocking::blocking;
pub(crate) use blocking_batch::BlockingBatch;
pub(crate) use buffer_pool::{Buffer, BufferPool};
pub(crate) use tasks::{Tasks, catch_panic};
