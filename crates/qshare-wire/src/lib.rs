//! qshare-wire
