//! qshare
fn main() {}
