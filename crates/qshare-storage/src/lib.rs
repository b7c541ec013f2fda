//! qshare-storage
