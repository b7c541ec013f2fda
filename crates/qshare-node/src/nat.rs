//! Address translation between this node and the internet: port mappings, and a report about it.

pub(crate) mod net_report;
pub(crate) mod port_mapping;
