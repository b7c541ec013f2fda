//! The key exchange of a code: SPAKE2, confirmation by both sides, and a sealed link.
//!
//! A receiver and a sharer who know the same [`Code`] derive the same keys; a third party that
//! passes their messages on, or plays one of them, gets one guess at the words per run. The types
//! enforce the order: [`PakeReceiver`] confirms first, and a sharer can seal only with a
//! [`VerifiedReceiver`], so that it sends nothing that depends on the key before.
//!
//! ```text
//! receiver                                        sharer
//! PakeReceiver::start      ── exchange A ──▶      PakeSharer::answer
//! PakeReceiver::answer     ◀── exchange B ──
//!                          ── proof A ─────▶      PakeSharer::verify
//! PakeAwaitingLink::open   ◀── proof B, sealed ── VerifiedReceiver::seal
//! ```
//!
//! SPAKE2 runs over Ed25519 with fixed sides: the receiver is A, the sharer B. An identity is
//! `receiver` or `sharer` and the number of the code (u32, little-endian). HKDF-SHA-256 with the
//! salt `qshare/code/1` makes four keys of its output, each with the info
//!
//! ```text
//! label │ receiver's NodeId │ sharer's NodeId │ number u32 LE │
//! bytes of A u16 LE │ A │ bytes of B u16 LE │ B
//! ```
//!
//! where the label is `confirm receiver`, `confirm sharer`, `seal` or `receipt`. A proof is
//! HMAC-SHA-256 under the prover's confirmation key over `qshare/code-proof/1`. The link is sealed
//! by AES-256-GCM under the sealing key, which is used once, with a nonce of zeros.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use qshare_content::{Code, NodeId};
use sha2::Sha256;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::Zeroizing;

const SALT: &[u8] = b"qshare/code/1";
const PROOF_INPUT: &[u8] = b"qshare/code-proof/1";
/// Associated data of the sealed link.
const SEAL_INPUT: &[u8] = b"qshare/code-link/1";

/// Why a run of the exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PakeError {
    /// The other side's message is none of this exchange.
    #[error("the message of the key exchange is invalid")]
    Message,
    /// The other side derived another key: its words are wrong, or somebody changed the messages.
    #[error("the confirmation of the key exchange is wrong")]
    Proof,
    /// The sealed link cannot be opened, or is no text.
    #[error("the sealed link cannot be opened")]
    Seal,
}

/// A receiver that has begun a run.
pub struct PakeReceiver {
    exchange: Spake2<Ed25519Group>,
    message: Vec<u8>,
    number: u32,
    us: NodeId,
}

/// A receiver that has confirmed and awaits the link.
pub struct PakeAwaitingLink {
    keys: Keys,
}

/// A sharer that has answered and awaits the receiver's confirmation.
pub struct PakeSharer {
    keys: Keys,
}

/// A sharer whose receiver has proven that it knows the words.
pub struct VerifiedReceiver {
    keys: Keys,
}

/// The link that a receiver was given, and the receipt for it.
pub struct OpenedLink {
    /// The link's text.
    pub link: Zeroizing<String>,
    /// Proves to the sharer which exchange a report of completion belongs to.
    pub receipt: [u8; 32],
}

/// The sharer's last message, and the receipt that its receiver has.
pub struct SealedLink {
    /// The sharer's confirmation.
    pub proof: [u8; 32],
    /// The sealed link.
    pub sealed: Vec<u8>,
    /// Proves which exchange a report of completion belongs to; not part of the message.
    pub receipt: [u8; 32],
}

impl PakeReceiver {
    /// Begins a run as node `us`.
    pub fn start(code: &Code, us: NodeId) -> PakeReceiver {
        let (receiver, sharer) = identities(code.number());
        let (exchange, message) =
            Spake2::<Ed25519Group>::start_a(&password(code), &receiver, &sharer);
        PakeReceiver {
            exchange,
            message,
            number: code.number(),
            us,
        }
    }

    /// Returns the first message.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Derives the keys from the answer of `sharer`; returns the confirmation to send.
    ///
    /// # Errors
    ///
    /// [`PakeError::Message`].
    pub fn answer(
        self,
        sharer: NodeId,
        message: &[u8],
    ) -> Result<(PakeAwaitingLink, [u8; 32]), PakeError> {
        let secret = self.exchange.finish(message);
        let secret = Zeroizing::new(secret.map_err(|_| PakeError::Message)?);
        let keys = Keys::derive(
            &secret,
            &Transcript {
                receiver: self.us,
                sharer,
                number: self.number,
                messages: [&self.message, message],
            },
        );
        let proof = keys.proof_of_receiver();
        Ok((PakeAwaitingLink { keys }, proof))
    }
}

impl PakeAwaitingLink {
    /// Verifies the sharer's confirmation and opens the link.
    ///
    /// # Errors
    ///
    /// [`PakeError::Proof`] and [`PakeError::Seal`]: the answering node does not know the words,
    /// or somebody changed a message.
    pub fn open(self, proof: &[u8; 32], mut sealed: Vec<u8>) -> Result<OpenedLink, PakeError> {
        self.keys.verify_sharer(proof)?;
        let key = self.keys.sealing_key()?;
        let opened = key.open_in_place(nonce(), Aad::from(SEAL_INPUT), &mut sealed);
        let opened = opened.map_err(|_| PakeError::Seal)?;
        let link = std::str::from_utf8(opened).map_err(|_| PakeError::Seal)?;
        let link = Zeroizing::new(link.to_owned());
        Ok(OpenedLink {
            link,
            receipt: *self.keys.receipt,
        })
    }
}

impl PakeSharer {
    /// Answers the first message of `receiver` as node `us`; returns the message to send.
    ///
    /// # Errors
    ///
    /// [`PakeError::Message`].
    pub fn answer(
        code: &Code,
        us: NodeId,
        receiver: NodeId,
        message: &[u8],
    ) -> Result<(PakeSharer, Vec<u8>), PakeError> {
        let (id_a, id_b) = identities(code.number());
        let (exchange, answer) = Spake2::<Ed25519Group>::start_b(&password(code), &id_a, &id_b);
        let secret = exchange.finish(message).map_err(|_| PakeError::Message)?;
        let keys = Keys::derive(
            &Zeroizing::new(secret),
            &Transcript {
                receiver,
                sharer: us,
                number: code.number(),
                messages: [message, &answer],
            },
        );
        Ok((PakeSharer { keys }, answer))
    }

    /// Verifies the receiver's confirmation.
    ///
    /// # Errors
    ///
    /// [`PakeError::Proof`]: a wrong guess at the words.
    pub fn verify(self, proof: &[u8; 32]) -> Result<VerifiedReceiver, PakeError> {
        self.keys.verify_receiver(proof)?;
        Ok(VerifiedReceiver { keys: self.keys })
    }
}

impl VerifiedReceiver {
    /// Seals a link.
    ///
    /// # Errors
    ///
    /// [`PakeError::Seal`] if the cipher fails, which it does for no link.
    pub fn seal(self, link: &str) -> Result<SealedLink, PakeError> {
        let mut sealed = link.as_bytes().to_vec();
        self.keys
            .sealing_key()?
            .seal_in_place_append_tag(nonce(), Aad::from(SEAL_INPUT), &mut sealed)
            .map_err(|_| PakeError::Seal)?;
        Ok(SealedLink {
            proof: self.keys.proof_of_sharer(),
            sealed,
            receipt: *self.keys.receipt,
        })
    }
}

/// What both sides must agree on.
struct Transcript<'a> {
    receiver: NodeId,
    sharer: NodeId,
    number: u32,
    messages: [&'a [u8]; 2],
}

type Key = Zeroizing<[u8; 32]>;

struct Keys {
    confirm_receiver: Key,
    confirm_sharer: Key,
    seal: Key,
    receipt: Key,
}

impl Keys {
    fn derive(secret: &[u8], transcript: &Transcript<'_>) -> Keys {
        let hkdf = Hkdf::<Sha256>::new(Some(SALT), secret);
        let key = |label: &[u8]| {
            let mut info = label.to_vec();
            info.extend(transcript.receiver.0);
            info.extend(transcript.sharer.0);
            info.extend(transcript.number.to_le_bytes());
            for message in transcript.messages {
                // A message that was accepted has 33 bytes.
                info.extend((message.len() as u16).to_le_bytes());
                info.extend(message);
            }
            let mut key = Zeroizing::new([0; 32]);
            // Fails only for more than 255 times 32 bytes (RFC 5869, section 2.3).
            let expanded = hkdf.expand(&info, key.as_mut_slice());
            debug_assert!(expanded.is_ok());
            key
        };
        Keys {
            confirm_receiver: key(b"confirm receiver"),
            confirm_sharer: key(b"confirm sharer"),
            seal: key(b"seal"),
            receipt: key(b"receipt"),
        }
    }

    fn proof_of_receiver(&self) -> [u8; 32] {
        mac(&self.confirm_receiver).finalize().into_bytes().into()
    }

    fn proof_of_sharer(&self) -> [u8; 32] {
        mac(&self.confirm_sharer).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    fn verify_receiver(&self, proof: &[u8; 32]) -> Result<(), PakeError> {
        let verified = mac(&self.confirm_receiver).verify_slice(proof);
        verified.map_err(|_| PakeError::Proof)
    }

    /// Compares in constant time.
    fn verify_sharer(&self, proof: &[u8; 32]) -> Result<(), PakeError> {
        let verified = mac(&self.confirm_sharer).verify_slice(proof);
        verified.map_err(|_| PakeError::Proof)
    }

    fn sealing_key(&self) -> Result<LessSafeKey, PakeError> {
        let key = UnboundKey::new(&AES_256_GCM, self.seal.as_slice());
        Ok(LessSafeKey::new(key.map_err(|_| PakeError::Seal)?))
    }
}

fn mac(key: &Key) -> Hmac<Sha256> {
    // HMAC pads its key to the block of 64 bytes with zeros (RFC 2104, section 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key.as_slice());
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&(*block).into());
    mac.update(PROOF_INPUT);
    mac
}

/// Each sealing key seals one link, so its nonce need not differ.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn password(code: &Code) -> Password {
    Password::new(code.password().as_bytes())
}

fn identities(number: u32) -> (Identity, Identity) {
    let identity = |role: &[u8]| Identity::new(&[role, &number.to_le_bytes()].concat());
    (identity(b"receiver"), identity(b"sharer"))
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use rand_core_06::{CryptoRng, Error, RngCore, impls};
    use sha2::Digest;

    use super::*;

    const RECEIVER: NodeId = NodeId([1; 32]);
    const SHARER: NodeId = NodeId([2; 32]);
    const LINK: &str = "qshare:link";

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    fn run(
        typed: &str,
        claimed_receiver: NodeId,
        claimed_sharer: NodeId,
    ) -> Result<OpenedLink, PakeError> {
        let receiver = PakeReceiver::start(&code(typed), RECEIVER);
        let offered = code("7-zebra-zoo");
        let (sharer, answer) =
            PakeSharer::answer(&offered, SHARER, claimed_receiver, receiver.message())?;
        let (receiver, proof) = receiver.answer(claimed_sharer, &answer)?;
        let sealed = sharer.verify(&proof)?.seal(LINK)?;
        let opened = receiver.open(&sealed.proof, sealed.sealed)?;
        assert_eq!(opened.receipt, sealed.receipt);
        Ok(opened)
    }

    #[test]
    fn the_right_words_open_the_link() {
        let opened = run("7-zebra-zoo", RECEIVER, SHARER).unwrap();
        assert_eq!(opened.link.as_str(), LINK);
    }

    #[test]
    fn wrong_words_number_or_nodes_fail_at_the_receivers_confirmation() {
        let other = NodeId([3; 32]);
        for (typed, receiver, sharer) in [
            ("7-zebra-zone", RECEIVER, SHARER),
            ("8-zebra-zoo", RECEIVER, SHARER),
            ("7-zebra-zoo", other, SHARER),
            ("7-zebra-zoo", RECEIVER, other),
        ] {
            let failed = run(typed, receiver, sharer).err();
            assert_eq!(failed, Some(PakeError::Proof), "{typed}");
        }
    }

    #[test]
    fn an_altered_message_fails_closed() {
        let offered = code("7-zebra-zoo");
        for altered in ["exchange", "proof", "sealed"] {
            let receiver = PakeReceiver::start(&offered, RECEIVER);
            let (sharer, mut answer) =
                PakeSharer::answer(&offered, SHARER, RECEIVER, receiver.message()).unwrap();
            if altered == "exchange" {
                answer[5] ^= 1;
            }
            let Ok((receiver, proof)) = receiver.answer(SHARER, &answer) else {
                continue;
            };
            let Ok(verified) = sharer.verify(&proof) else {
                assert_eq!(altered, "exchange");
                continue;
            };
            let mut sealed = verified.seal(LINK).unwrap();
            match altered {
                "proof" => sealed.proof[0] ^= 1,
                _ => sealed.sealed[0] ^= 1,
            }
            assert!(
                receiver.open(&sealed.proof, sealed.sealed).is_err(),
                "{altered}"
            );
        }
    }

    #[test]
    fn a_reflected_message_or_one_of_another_length_is_refused() {
        let offered = code("7-zebra-zoo");
        let receiver = PakeReceiver::start(&offered, RECEIVER);
        let own = receiver.message().to_vec();
        assert!(receiver.answer(SHARER, &own).is_err());
        for message in [&b""[..], &[0x41; 32], &[0x41; 34], &[0xff; 33]] {
            assert!(PakeSharer::answer(&offered, SHARER, RECEIVER, message).is_err());
        }
    }

    /// Bytes that count up from a start: vectors need a generator that every language has.
    struct Counting(u8);

    impl RngCore for Counting {
        fn next_u32(&mut self) -> u32 {
            impls::next_u32_via_fill(self)
        }

        fn next_u64(&mut self) -> u64 {
            impls::next_u64_via_fill(self)
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                *byte = self.0;
                self.0 = self.0.wrapping_add(1);
            }
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    impl CryptoRng for Counting {}

    /// The vectors in docs/protocol.md: both scalars are 64 counting bytes, reduced.
    #[test]
    fn the_transcript_has_these_bytes() {
        let code = code("7-zebra-zoo");
        let (a, b) = identities(code.number());
        let (exchange_a, message_a) =
            Spake2::<Ed25519Group>::start_a_with_rng(&password(&code), &a, &b, Counting(0));
        let (exchange_b, message_b) =
            Spake2::<Ed25519Group>::start_b_with_rng(&password(&code), &a, &b, Counting(100));
        let secret = exchange_a.finish(&message_b).unwrap();
        assert_eq!(secret, exchange_b.finish(&message_a).unwrap());
        let keys = Keys::derive(
            &secret,
            &Transcript {
                receiver: RECEIVER,
                sharer: SHARER,
                number: 7,
                messages: [&message_a, &message_b],
            },
        );
        let proof_a = keys.proof_of_receiver();
        let receipt = *keys.receipt;
        let sealed = VerifiedReceiver { keys }.seal(LINK).unwrap();
        let bytes = [
            &message_a[..],
            &message_b,
            &secret,
            &proof_a,
            &sealed.proof,
            &sealed.sealed,
            &receipt,
        ];
        let bytes: Vec<String> = bytes.iter().map(|bytes| HEXLOWER.encode(bytes)).collect();
        assert_eq!(bytes, VECTORS);
        // No two of the keys are the same.
        let digests: std::collections::BTreeSet<_> = bytes.iter().map(Sha256::digest).collect();
        assert_eq!(digests.len(), bytes.len());
    }

    const VECTORS: [&str; 7] = [
        "41fe944c9b97d37715763e3a2ace1d3237608e36ca8dfbe939470e8e8ce8a22308",
        "42ec888ad8b0dc9891c16d5baacda6a61a80d3be2af556f670ae9c2b5266565829",
        "79cacc80b02680ce0ba682e7467d67194d586987ba62bda3336ef43c82a0207f",
        "4ac252c7cbcf6e688010d1a7201666e8e371f5fe4ba6d1fc39b3abe32de4e16c",
        "8bcf7a2bf147b788e738efef3d82c4119207d626a94db7c8a6745e886a1a0180",
        "a060ab0bacdba46877d34aab67683d9cc284b03a668b380f53d7c4",
        "863c6de054c57916fd159e2d95015488df3524ee6ec4528a700bd1924c781b72",
    ];
}
