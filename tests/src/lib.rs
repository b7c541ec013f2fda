//! qshare-tests
