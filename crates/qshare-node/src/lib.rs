//! qshare-node
