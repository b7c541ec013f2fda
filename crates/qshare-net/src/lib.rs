//! qshare-net
