//! qshare-swarm
