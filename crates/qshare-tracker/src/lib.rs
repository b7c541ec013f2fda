//! qshare-tracker
