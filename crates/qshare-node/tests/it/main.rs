//! The integration tests of this crate, one binary.

mod codes;
mod flood;
mod full_tracker;
mod introductions;
mod limits;
mod private;
mod scripted_tracker;
mod transfers;
mod waiting;
