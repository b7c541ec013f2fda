//! qshare-benches
