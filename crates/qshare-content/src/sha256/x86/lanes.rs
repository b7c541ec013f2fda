//! SHA-256 with one message in each lane of a vector, for AVX2 and AVX-512.
//!
//! This is a macro and not a generic function: code that uses an instruction set must be compiled
//! for it, and the methods of a trait cannot be.

/// Defines `digest_group` (see [`super::super::kernel::Run`]) from items in the scope of its
/// use: `LANES`, the type `Vector`, and the functions `broadcast`, `transposed`, `lanes_of`,
/// `add`, `exclusive_or`, `choose`, `majority`, `rotate_right::<N>` and `shift_right::<N>`.
macro_rules! digest_group_in_lanes {
    ($features:literal) => {
        /// Computes the digests of up to [`LANES`] messages; see [`super::super::kernel::Run`].
        #[target_feature(enable = $features)]
        pub(super) fn digest_group(
            messages: &[u8],
            message_bytes: usize,
            digests: &mut [super::super::digest::Digest],
        ) {
            let lanes = super::compression::blocks_by_lane::<LANES>(messages, message_bytes);
            let padding = super::compression::padding_block(message_bytes);
            let mut state = [broadcast(0); 8];
            for (vector, word) in state.iter_mut().zip(super::compression::INITIAL_STATE) {
                *vector = broadcast(word);
            }
            for block in 0..=lanes[0].len() {
                let rows = super::compression::rows_at(&lanes, block, &padding);
                compress(&mut state, transposed(rows));
            }
            let mut words = [[0; LANES]; 8];
            for (words, vector) in words.iter_mut().zip(state) {
                *words = lanes_of(vector);
            }
            for (lane, digest) in digests.iter_mut().enumerate().take(LANES) {
                super::compression::write_digest(words.map(|word| word[lane]), digest);
            }
        }

        /// Compresses one block of every lane; `schedule[word]` holds that word of all lanes.
        #[inline]
        #[target_feature(enable = $features)]
        fn compress(state: &mut [Vector; 8], mut schedule: [Vector; 16]) {
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
            for (pass, constants) in super::compression::ROUND_CONSTANTS.as_chunks::<16>().0.iter().enumerate() {
                if pass > 0 {
                    // The next sixteen words (FIPS 180-4, 6.2.2) overwrite those they replace.
                    for t in 0..16 {
                        let (w2, w15) = (schedule[(t + 14) % 16], schedule[(t + 1) % 16]);
                        let (w7, w16) = (schedule[(t + 9) % 16], schedule[t]);
                        let sigma0 = exclusive_or(
                            rotate_right::<7>(w15),
                            rotate_right::<18>(w15),
                            shift_right::<3>(w15),
                        );
                        let sigma1 = exclusive_or(
                            rotate_right::<17>(w2),
                            rotate_right::<19>(w2),
                            shift_right::<10>(w2),
                        );
                        schedule[t] = add(add(w16, sigma0), add(w7, sigma1));
                    }
                }
                let constants = constants.as_chunks::<8>().0;
                let words = schedule.as_chunks::<8>().0;
                for (constants, words) in constants.iter().zip(words) {
                    macro_rules! round {
                        ($t:literal $a:ident $b:ident $c:ident $d:ident
                         $e:ident $f:ident $g:ident $h:ident) => {
                            let sum1 = exclusive_or(
                                rotate_right::<6>($e),
                                rotate_right::<11>($e),
                                rotate_right::<25>($e),
                            );
                            let sum0 = exclusive_or(
                                rotate_right::<2>($a),
                                rotate_right::<13>($a),
                                rotate_right::<22>($a),
                            );
                            let input = add($h, add(words[$t], broadcast(constants[$t])));
                            let first = add(input, add(sum1, choose($e, $f, $g)));
                            $d = add($d, first);
                            $h = add(first, add(sum0, majority($a, $b, $c)));
                        };
                    }
                    // Each round uses the eight variables under shifted names, so that none is
                    // moved.
                    round!(0 a b c d e f g h);
                    round!(1 h a b c d e f g);
                    round!(2 g h a b c d e f);
                    round!(3 f g h a b c d e);
                    round!(4 e f g h a b c d);
                    round!(5 d e f g h a b c);
                    round!(6 c d e f g h a b);
                    round!(7 b c d e f g h a);
                }
            }
            for (vector, word) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                *vector = add(*vector, word);
            }
        }
    };
}

pub(super) use digest_group_in_lanes;
