//! The automaton of a glob, which advances all states at once.

use super::bits::{Bits, WORDS_MAX};
use super::positions::{Part, Positions, Symbol};

/// The automaton of a glob, with a state set no larger than it needs.
#[derive(Clone, Debug)]
pub(super) enum Automaton {
    /// At most 64 positions: ordinary globs.
    Short(Nfa<1>),
    Long(Nfa<WORDS_MAX>),
}

impl Automaton {
    pub(super) fn new(positions: &Positions, whole: &Part) -> Automaton {
        match positions.symbols.len() {
            0..=64 => Automaton::Short(Nfa::new(positions, whole)),
            _ => Automaton::Long(Nfa::new(positions, whole)),
        }
    }

    pub(super) fn matches(&self, name: &str, steps: &mut u64) -> bool {
        match self {
            Automaton::Short(nfa) => nfa.matches(name, steps),
            Automaton::Long(nfa) => nfa.matches(name, steps),
        }
    }
}

/// Most positions are followed by themselves or by the next few, which shifts express.
const SHIFTS: usize = 4;

/// All positions of a glob, advanced at once.
#[derive(Clone, Debug)]
pub(super) struct Nfa<const W: usize> {
    first: Bits<W>,
    last: Bits<W>,
    nullable: bool,
    /// Where each ASCII character can be consumed.
    ascii: Box<[Bits<W>]>,
    /// What each position consumes, for other characters.
    symbols: Box<[Symbol]>,
    /// The positions that are followed by the one that lies 0, 1, … further.
    followed_after: [Bits<W>; SHIFTS],
    /// Positions that are followed by others, grouped by these: what is before, inside and at the
    /// end of alternatives.
    jumps: Box<[(Bits<W>, Bits<W>)]>,
    jumping: Bits<W>,
    /// Once here, whatever follows matches.
    accepting: Bits<W>,
}

impl<const W: usize> Nfa<W> {
    fn new(positions: &Positions, whole: &Part) -> Nfa<W> {
        let Positions { symbols, follow } = positions;
        let mut nfa = Nfa {
            first: whole.first.resized(),
            last: whole.last.resized(),
            nullable: whole.nullable,
            ascii: vec![Bits::EMPTY; 128].into_boxed_slice(),
            symbols: symbols.clone().into_boxed_slice(),
            followed_after: [Bits::EMPTY; SHIFTS],
            jumps: Box::default(),
            jumping: Bits::EMPTY,
            accepting: Bits::EMPTY,
        };
        let mut jumps: Vec<(Bits<W>, Bits<W>)> = Vec::new();
        for (position, symbol) in symbols.iter().enumerate() {
            for (c, consumed) in (0_u8..).zip(&mut nfa.ascii) {
                if symbol.consumes(char::from(c)) {
                    consumed.insert(position);
                }
            }
            let mut far: Bits<W> = Bits::EMPTY;
            for next in follow[position].iter() {
                match next.checked_sub(position) {
                    Some(distance) if distance < SHIFTS => {
                        nfa.followed_after[distance].insert(position);
                    }
                    _ => far.insert(next),
                }
            }
            if !far.is_empty() {
                nfa.jumping.insert(position);
                match jumps.iter_mut().find(|(_, to)| *to == far) {
                    Some((from, _)) => from.insert(position),
                    None => jumps.push((Bits::one(position), far)),
                }
            }
            if matches!(symbol, Symbol::Anything) && nfa.last.contains(position) {
                nfa.accepting.insert(position);
            }
        }
        nfa.jumps = jumps.into_boxed_slice();
        nfa
    }

    fn matches(&self, name: &str, steps: &mut u64) -> bool {
        let mut states = self.first;
        let mut matched = self.nullable;
        for c in name.chars() {
            if !(states & self.accepting).is_empty() {
                return true;
            }
            *steps += W as u64;
            let consumed = states & self.consuming(c, states, steps);
            if consumed.is_empty() {
                return false;
            }
            matched = !(consumed & self.last).is_empty();
            states = self.followed_after[0] & consumed;
            for (by, followed) in (0..).zip(&self.followed_after).skip(1) {
                states |= (*followed & consumed).shifted(by);
            }
            if !(consumed & self.jumping).is_empty() {
                *steps += (W * self.jumps.len()) as u64;
                for &(from, to) in &self.jumps {
                    if !(consumed & from).is_empty() {
                        states |= to;
                    }
                }
            }
        }
        matched
    }

    /// Which of these positions can consume a character.
    fn consuming(&self, c: char, states: Bits<W>, steps: &mut u64) -> Bits<W> {
        if let Some(consuming) = self.ascii.get(c as usize) {
            return *consuming;
        }
        let mut consuming = Bits::EMPTY;
        for position in states.iter() {
            *steps += 1;
            if self.symbols[position].consumes(c) {
                consuming.insert(position);
            }
        }
        consuming
    }
}
