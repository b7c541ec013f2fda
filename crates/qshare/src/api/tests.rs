//! Tests of the API in one process, on a real socket, and of its documentation.

mod documentation;
mod requests;
