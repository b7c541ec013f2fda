//! Bundles of packets: one header for up to 64 KiB of TCP or UDP payload, with the segment size at
//! which it is cut into packets (segmentation offload, as TUN devices deliver it).
//!
//! In memory, a bundle is what a read from the device returns: `struct virtio_net_hdr` of
//! <linux/virtio_net.h>, then the packet.
//!
//! ```text
//! 0 flags u8 │ 1 type u8 │ 2 header length u16 │ 4 segment size u16 │
//! 6 checksum start u16 │ 8 checksum offset u16
//! ```
//!
//! The fields of that header are in the machine's byte order, those of the packet in network order.

use std::ops::Range;

/// Size of the header before each packet.
pub(crate) const HEADER_BYTES: usize = 10;

/// The transport's checksum covers only its pseudo header so far.
const NEEDS_CHECKSUM: u8 = 1;
const TYPE_NONE: u8 = 0;
const TYPE_TCP4: u8 = 1;
const TYPE_TCP6: u8 = 4;
const TYPE_UDP: u8 = 5;
/// Flag of the type for TCP with ECN.
const TYPE_ECN: u8 = 0x80;

const FIN: u8 = 0x01;
const PUSH: u8 = 0x08;
const WINDOW_REDUCED: u8 = 0x80;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Offsets of the parts of a bundle, from the packet's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    is_tcp: bool,
    transport: usize,
    payload: usize,
    segment_bytes: usize,
    segments: usize,
}

fn layout(bundle: &[u8]) -> Option<Layout> {
    let number = |at: usize| {
        let bytes = bundle.get(at..at + 2)?;
        Some(usize::from(u16::from_ne_bytes(bytes.try_into().ok()?)))
    };
    let packet = bundle.get(HEADER_BYTES..)?;
    let is_tcp = match bundle[1] & !TYPE_ECN {
        TYPE_TCP4 | TYPE_TCP6 => true,
        TYPE_UDP => false,
        _ => return None,
    };
    let (segment_bytes, transport) = (number(4)?, number(6)?);
    let length = match is_tcp {
        true => usize::from(packet.get(transport + 12)? >> 4) * 4,
        false => 8,
    };
    let payload = transport + length;
    let held = packet.len().checked_sub(payload)?;
    if bundle[0] & NEEDS_CHECKSUM == 0 || segment_bytes == 0 {
        return None;
    }
    Some(Layout {
        is_tcp,
        transport,
        payload,
        segment_bytes,
        segments: held.div_ceil(segment_bytes),
    })
}

/// Drops packets of a bundle, or a single packet, at random. Returns the runs of packets between
/// losses, in order.
pub(crate) fn survivors(bundle: &[u8], mut is_lost: impl FnMut() -> bool) -> Vec<Vec<u8>> {
    let Some(layout) = layout(bundle).filter(|layout| layout.segments > 1) else {
        return match is_lost() {
            true => Vec::new(),
            false => vec![bundle.to_vec()],
        };
    };
    let mut runs = Vec::new();
    let mut start = 0;
    for at in 0..layout.segments {
        if is_lost() {
            runs.push(start..at);
            start = at + 1;
        }
    }
    runs.push(start..layout.segments);
    runs.into_iter()
        .filter(|run| !run.is_empty())
        .map(|run| cut(bundle, layout, run))
        .collect()
}

/// A run of successive packets of a bundle.
fn cut(bundle: &[u8], layout: Layout, run: Range<usize>) -> Vec<u8> {
    if run == (0..layout.segments) {
        return bundle.to_vec();
    }
    let (header, packet) = bundle.split_at(HEADER_BYTES);
    let (headers, payload) = packet.split_at(layout.payload);
    let skipped = run.start * layout.segment_bytes;
    let end = payload.len().min(run.end * layout.segment_bytes);

    let mut one = Vec::with_capacity(HEADER_BYTES + headers.len() + end - skipped);
    one.extend_from_slice(header);
    one.extend_from_slice(headers);
    one.extend_from_slice(&payload[skipped..end]);
    let (header, packet) = one.split_at_mut(HEADER_BYTES);
    if run.len() == 1 {
        header[1] = TYPE_NONE;
        header[4..6].fill(0);
    }
    let total = packet.len();
    let transport_bytes = total - layout.transport;
    let protocol = match layout.is_tcp {
        true => PROTOCOL_TCP,
        false => PROTOCOL_UDP,
    };
    let addresses = match packet[0] >> 4 {
        4 => {
            set(packet, 2, total);
            let id = u16::from_be_bytes([packet[4], packet[5]]);
            set(packet, 4, usize::from(id.wrapping_add(run.start as u16)));
            set(packet, 10, 0);
            let length = usize::from(packet[0] & 0xf) * 4;
            let sum = !fold(sum(&packet[..length]));
            set(packet, 10, usize::from(sum));
            12..20
        }
        _ => {
            set(packet, 4, total - 40);
            8..40
        }
    };
    let checksum = layout.transport
        + match layout.is_tcp {
            true => {
                let at = layout.transport + 4;
                let number = [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]];
                let number = u32::from_be_bytes(number).wrapping_add(skipped as u32);
                packet[at..at + 4].copy_from_slice(&number.to_be_bytes());
                let flags = &mut packet[layout.transport + 13];
                if run.end < layout.segments {
                    *flags &= !(FIN | PUSH);
                }
                if run.start > 0 {
                    *flags &= !WINDOW_REDUCED;
                }
                16
            }
            false => {
                set(packet, layout.transport + 4, transport_bytes);
                6
            }
        };
    let pseudo = sum(&packet[addresses]) + u32::from(protocol) + transport_bytes as u32;
    set(packet, checksum, usize::from(fold(pseudo)));
    one
}

/// Writes a big-endian u16; packets are at most 64 KiB.
fn set(packet: &mut [u8], at: usize, value: usize) {
    packet[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// The internet checksum's sum (RFC 1071) of an even number of bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: usize = 100;

    /// IPv4 and TCP or UDP around a payload, as the kernel bundles it.
    fn bundle(is_tcp: bool, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![NEEDS_CHECKSUM, if is_tcp { TYPE_TCP4 } else { TYPE_UDP }];
        for number in [0u16, SEGMENT as u16, 20, if is_tcp { 16 } else { 6 }] {
            header.extend_from_slice(&number.to_ne_bytes());
        }
        let transport = if is_tcp { 20 } else { 8 };
        let mut packet = vec![0; 20 + transport];
        packet[0] = 0x45;
        packet[9] = if is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        packet[12..20].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        if is_tcp {
            packet[24..28].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
            packet[32] = 0x50;
            packet[33] = 0x10 | FIN | PUSH | WINDOW_REDUCED;
        }
        header.extend(packet);
        header.extend_from_slice(payload);
        header
    }

    fn payload(run: &[u8], is_tcp: bool) -> &[u8] {
        &run[HEADER_BYTES + if is_tcp { 40 } else { 28 }..]
    }

    #[test]
    fn runs_between_losses_hold_what_was_not_lost() {
        let data: Vec<u8> = (0..=255).cycle().take(5 * SEGMENT + 7).collect();
        for is_tcp in [true, false] {
            let mut number = 0;
            let runs = survivors(&bundle(is_tcp, &data), || {
                number += 1;
                number == 1 || number == 4
            });
            assert_eq!(number, 6);
            let [first, second] = &runs[..] else {
                panic!("{} runs", runs.len())
            };
            assert_eq!(payload(first, is_tcp), &data[SEGMENT..3 * SEGMENT]);
            assert_eq!(payload(second, is_tcp), &data[4 * SEGMENT..]);
            for run in [first, second] {
                let packet = &run[HEADER_BYTES..];
                assert_eq!(fold(sum(&packet[..20])), 0xffff, "checksum of IPv4");
                let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                assert_eq!(length, packet.len());
            }
            if is_tcp {
                let number = |run: &[u8]| {
                    let bytes = &run[HEADER_BYTES + 24..HEADER_BYTES + 28];
                    u32::from_be_bytes(bytes.try_into().unwrap())
                };
                assert_eq!(number(first), 0xffff_fff0u32.wrapping_add(100));
                assert_eq!(number(second), 0xffff_fff0u32.wrapping_add(400));
                assert_eq!(first[HEADER_BYTES + 33], 0x10);
                assert_eq!(second[HEADER_BYTES + 33], 0x10 | FIN | PUSH);
            }
        }
    }

    #[test]
    fn a_run_of_one_packet_is_no_bundle() {
        let runs = survivors(&bundle(false, &[7; 3 * SEGMENT]), {
            let mut number = 0;
            move || {
                number += 1;
                number == 2
            }
        });
        assert_eq!(runs.len(), 2);
        for run in &runs {
            assert_eq!((run[1], &run[4..6]), (TYPE_NONE, &[0, 0][..]));
            assert_eq!(run[0], NEEDS_CHECKSUM);
        }
    }

    #[test]
    fn single_packets_are_kept_or_lost_whole() {
        let mut single = bundle(true, &[1; SEGMENT]);
        single[1] = TYPE_NONE;
        assert_eq!(survivors(&single, || false), vec![single.clone()]);
        assert!(survivors(&single, || true).is_empty());
        assert!(survivors(&bundle(true, &[1; 9 * SEGMENT]), || true).is_empty());
    }

    #[test]
    fn nonsense_is_passed_on_as_one_packet() {
        for length in HEADER_BYTES..60 {
            let mut bytes = bundle(true, &[]);
            bytes.truncate(length);
            assert_eq!(survivors(&bytes, || false).len(), 1);
        }
    }
}
