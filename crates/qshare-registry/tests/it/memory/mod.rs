//! The registry in memory: the conformance suite, and what only its caller sees: its bounds, its
//! work counted in steps, its outputs and its virtual time.

mod alone;
mod budgets_model;
mod common;
mod full;
mod hostile;
mod metadata;
mod registry;
mod topics;
