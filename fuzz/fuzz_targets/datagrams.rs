//! Datagrams beside QUIC: what can be parsed is written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qshare_wire::datagram::{Datagram, is_non_quic};

fuzz_target!(|data: &[u8]| {
    if let Some(datagram) = Datagram::parse(data) {
        assert_eq!(datagram.to_bytes(), data);
        assert!(is_non_quic(data[0]));
    }
});
