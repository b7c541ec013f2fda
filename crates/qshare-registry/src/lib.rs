//! qshare-registry
