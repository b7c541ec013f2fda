//! The NAT between this node and the Internet: port mappings, and a report about it.

mod net_report;
mod port_mapping;

pub use net_report::{
    AddressMapping, Filtering, NatKind, NetReport, NetReportConfig, NetReportError, NotAsked,
    PortMappingFound, Seen, net_report,
};
pub(crate) use port_mapping::PortMapper;
